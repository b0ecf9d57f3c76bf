//! Rules over the tree that no other tool has. Each is a function from a file to complaints, proved on a planted violation.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// Columns that a line of code may have; text that cannot be broken (a URL, a table row) may be longer.
const COLUMNS_MAX: usize = 160;
/// Lines of a function above which the nudge speaks once it has just outgrown them.
const FUNCTION_LINES: std::ops::Range<usize> = 121..151;

type Rule = fn(&File) -> Vec<String>;

const RULES: &[(&str, Rule)] = &[
    ("line width", line_width),
    ("no tabs or trailing blanks", blanks),
    ("a module says what it is for", module_docs),
    ("nothing unfinished", unfinished),
    ("no unwrap where bytes come from outside", unwraps),
    ("unsafe has its place and its reason", unsafe_code),
    ("no paths of a workplace", workplace_paths),
    ("one sentence per line in documents", sentences),
    ("functions that have just grown too long", long_functions),
    ("a full stop ends no error", error_texts),
];

struct File {
    /// From the root, with slashes.
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Lines of code without the file's test module, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = self
            .text
            .split_once("#[cfg(test)]\nmod tests")
            .map_or(self.text.as_str(), |(code, _)| code);
        code.lines().enumerate().map(|(at, line)| (at + 1, line))
    }
}

fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                // What git does not keep, and what others wrote.
                if ![
                    "target",
                    ".git",
                    "skeindns-data",
                    "corpus",
                    "proptest-regressions",
                ]
                .contains(&name.as_str())
                {
                    todo.push(path);
                }
                continue;
            }
            let known = [
                ".rs",
                ".md",
                ".toml",
                ".dns",
                ".sh",
                ".example",
                "Dnsfile",
                "Makefile",
                "Dockerfile",
                "run",
                "pre-commit",
            ];
            if !known.iter().any(|end| name.ends_with(end)) {
                continue;
            }
            if let (Ok(text), Ok(path)) = (std::fs::read_to_string(&path), path.strip_prefix(root))
            {
                found.push(File {
                    path: path.to_string_lossy().replace('\\', "/"),
                    text,
                });
            }
        }
    }
    assert!(
        found.len() > 50,
        "the tree is not where this test looks for it"
    );
    found
}

#[test]
fn the_tree_is_tidy() {
    let files = files();
    let mut complaints = Vec::new();
    for file in &files {
        for (name, rule) in RULES {
            complaints.extend(
                rule(file)
                    .into_iter()
                    .map(|what| format!("{}:{what} ({name})", file.path)),
            );
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

//--- The rules ------------------------------------------------------------------------------------

fn line_width(file: &File) -> Vec<String> {
    if !file.is_rust() {
        return Vec::new();
    }
    file.text
        .lines()
        .enumerate()
        .filter(|(_, line)| {
            line.chars().count() > COLUMNS_MAX
                && !line.contains("://")
                && !line.contains('"')
                && !line.trim_start().starts_with("//! |")
        })
        .map(|(at, line)| format!("{}: {} columns", at + 1, line.chars().count()))
        .collect()
}

fn blanks(file: &File) -> Vec<String> {
    let tabs_allowed = file.path == "Makefile" || file.path.ends_with(".dns");
    file.text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.ends_with([' ', '\t']) || (!tabs_allowed && line.contains('\t')))
        .map(|(at, _)| format!("{}: a tab or a blank at the end", at + 1))
        .collect()
}

fn module_docs(file: &File) -> Vec<String> {
    let first = file.text.lines().next().unwrap_or_default();
    match file.is_rust() && !first.starts_with("//!") && !first.starts_with("#!") {
        true => vec!["1: no `//!` line says what this file is for".to_owned()],
        false => Vec::new(),
    }
}

fn unfinished(file: &File) -> Vec<String> {
    if !file.is_rust() || file.path == "tests/tidy.rs" {
        return Vec::new();
    }
    static MARKS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\b(todo!|unimplemented!|dbg!)\(|\b(FIXME|XXX|TODO)\b").expect("a literal")
    });
    file.text
        .lines()
        .enumerate()
        // A TODO may stand with its issue's number.
        .filter(|(_, line)| MARKS.is_match(line) && !(line.contains("TODO") && line.contains('#')))
        .map(|(at, line)| format!("{}: {}", at + 1, line.trim()))
        .collect()
}

fn unwraps(file: &File) -> Vec<String> {
    let outside = ["plugins/kit/", "src/listen/"];
    // The test kit panics on purpose; what it is given is ours.
    if !outside.iter().any(|path| file.path.starts_with(path))
        || file.path.starts_with("plugins/kit/testing/")
        || file.path.ends_with("/tests.rs")
        || !file.is_rust()
    {
        return Vec::new();
    }
    file.code()
        .filter(|(_, line)| line.contains(".unwrap()") && !line.trim_start().starts_with("//"))
        .map(|(at, _)| format!("{at}: unwrap"))
        .collect()
}

fn unsafe_code(file: &File) -> Vec<String> {
    if !file.is_rust() || file.path == "tests/tidy.rs" || file.path == "tests/alloc.rs" {
        return Vec::new();
    }
    static WORD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\bunsafe\s*(\{|fn|impl)").expect("a literal"));
    let lines: Vec<(usize, &str)> = file.code().collect();
    let mut complaints = Vec::new();
    for (at, line) in &lines {
        if !WORD.is_match(line) || line.trim_start().starts_with("//") {
            continue;
        }
        if !["src/", "benches/"]
            .iter()
            .any(|at| file.path.starts_with(at))
        {
            complaints.push(format!("{at}: unsafe outside the engine and the benches"));
        }
        let above = lines.get(at.saturating_sub(6)..at - 1).unwrap_or_default();
        if !above
            .iter()
            .any(|(_, line)| line.contains("// SAFETY:") || line.contains("# Safety"))
        {
            complaints.push(format!("{at}: no `// SAFETY:` above"));
        }
    }
    complaints
}

fn workplace_paths(file: &File) -> Vec<String> {
    if file.path == "tests/tidy.rs" {
        return Vec::new();
    }
    static PATH: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"/work/|/home/[a-z]|/root/|/tmp/[a-z]").expect("a literal"));
    file.text
        .lines()
        .enumerate()
        .filter(|(_, line)| PATH.is_match(line))
        .map(|(at, line)| format!("{}: {}", at + 1, line.trim()))
        .collect()
}

fn sentences(file: &File) -> Vec<String> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    // A full stop, a space and a capital: a second sentence on the line. Abbreviations with an inner stop do not match.
    static SECOND: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"[a-z`)*0-9]\. [A-Z][a-z]+ [a-z]").expect("a literal"));
    let mut fenced = false;
    let mut complaints = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let prose = !fenced && !line.starts_with(['|', '#', '>']);
        if prose && SECOND.is_match(line) {
            complaints.push(format!("{}: two sentences on a line", at + 1));
        }
    }
    complaints
}

fn long_functions(file: &File) -> Vec<String> {
    // A test may tell a long story.
    if !file.is_rust() || file.path.starts_with("tests/") {
        return Vec::new();
    }
    static HEAD: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(\s*)(pub(\([a-z]+\))? )?(async |const )*fn (\w+)").expect("a literal")
    });
    let mut complaints = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (at, line) in file.code() {
        if let Some((start, end, name)) = &open
            && line == end
        {
            if FUNCTION_LINES.contains(&(at - start)) {
                complaints.push(format!("{start}: {name} has {} lines", at - start));
            }
            open = None;
        }
        if open.is_none()
            && let Some(found) = HEAD.captures(line)
            && !line.trim_end().ends_with(';')
        {
            open = Some((at, format!("{}}}", &found[1]), found[5].to_owned()));
        }
    }
    complaints
}

fn error_texts(file: &File) -> Vec<String> {
    if !file.is_rust() || !file.path.starts_with("plugins/") {
        return Vec::new();
    }
    static TEXT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"SetupError::(at|general)\([^"]*"[^"]*\."\)"#).expect("a literal")
    });
    file.code()
        .filter(|(_, line)| TEXT.is_match(line))
        .map(|(at, line)| format!("{at}: {}", line.trim()))
        .collect()
}

//--- The rules' own tests --------------------------------------------------------------------------

/// A violation for each rule, and the file in which it is one.
const PLANTED: &[(&str, &str, &str)] = &[
    (
        "line width",
        "plugins/x.rs",
        "//! X.\nlet x = 11111111111111111111111111111111111111111111111111111111111111111111111111111111 + 11111111111111111111111111111111111111111111111111111111111111111111111111111111111111;\n",
    ),
    (
        "no tabs or trailing blanks",
        "plugins/x.rs",
        "//! X.\nlet x = 1; \n",
    ),
    ("a module says what it is for", "plugins/x.rs", "use x;\n"),
    (
        "nothing unfinished",
        "plugins/x.rs",
        "//! X.\nfn f() {\n    todo!()\n}\n",
    ),
    (
        "no unwrap where bytes come from outside",
        "plugins/kit/x.rs",
        "//! X.\nlet x = packet.get(1).unwrap();\n",
    ),
    (
        "unsafe has its place and its reason",
        "plugins/x.rs",
        "//! X.\nlet x = unsafe { y };\n",
    ),
    ("no paths of a workplace", "docs/x.md", "See /home/me/x.\n"),
    (
        "one sentence per line in documents",
        "docs/x.md",
        "This is one. That is another.\n",
    ),
    (
        "a full stop ends no error",
        "plugins/x.rs",
        "//! X.\nSetupError::at(span, \"is wrong.\")\n",
    ),
];

#[test]
fn each_rule_sees_its_violation() {
    for (name, path, text) in PLANTED {
        let (_, rule) = RULES
            .iter()
            .find(|(rule, _)| rule == name)
            .expect("the rule is in the list");
        let file = File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        assert!(!rule(&file).is_empty(), "{name}");
        let clean = File {
            path: file.path.clone(),
            text: "//! X.\nfn f() {}\n".to_owned(),
        };
        assert_eq!(rule(&clean), Vec::<String>::new(), "{name}");
    }
    let body = "    x();\n".repeat(125);
    let file = File {
        path: "src/x.rs".to_owned(),
        text: format!("//! X.\nfn f() {{\n{body}}}\n"),
    };
    assert_eq!(long_functions(&file).len(), 1);
}
