//! What the parser accepts and says, over a file system in memory.

use std::collections::{BTreeMap, HashMap};

use super::*;

/// Files by absolute path, and variables. The working folder is `/etc/dns`.
#[derive(Default)]
struct Memory {
    files: BTreeMap<PathBuf, String>,
    variables: HashMap<String, String>,
}

impl Memory {
    fn file(mut self, path: &str, text: &str) -> Memory {
        self.files.insert(path.into(), text.into());
        self
    }
    fn variable(mut self, name: &str, value: &str) -> Memory {
        self.variables.insert(name.into(), value.into());
        self
    }
    fn is_folder(&self, path: &Path) -> bool {
        self.files
            .keys()
            .any(|file| file != path && file.starts_with(path))
    }
}

impl Loader for Memory {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.files.get(path) {
            Some(text) => Ok(text.clone().into_bytes()),
            None if self.is_folder(path) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = self
            .files
            .keys()
            .filter_map(|file| {
                file.strip_prefix(folder)
                    .ok()?
                    .iter()
                    .next()?
                    .to_str()
                    .map(str::to_owned)
            })
            .collect();
        names.dedup();
        Ok(names)
    }
    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path) || self.is_folder(path)
    }
    fn absolute(&self, path: &Path) -> PathBuf {
        Path::new("/etc/dns").join(path)
    }
}

/// The tree printed, then warnings; or the errors.
fn read_with(loader: &Memory, text: &str) -> String {
    let shown = |sources: &Sources, errors: &[SetupError], prefix: &str| -> String {
        errors
            .iter()
            .map(|error| {
                let place = error.at.and_then(|at| sources.place(at));
                let place = place.map_or(String::new(), |place| {
                    let file = if place.file == "Dnsfile" {
                        ""
                    } else {
                        place.file
                    };
                    format!("{file}{}:{}: ", place.line, place.column)
                });
                let near = error.suggestion.as_ref();
                let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                format!("{prefix}{place}{}{near}\n", error.what)
            })
            .collect()
    };
    match parse("Dnsfile", text, loader) {
        Ok(dnsfile) => {
            let warnings = shown(&dnsfile.sources, &dnsfile.warnings, "warning ");
            format!("{dnsfile}{warnings}")
        }
        Err(rejected) => shown(&rejected.sources, &rejected.errors, ""),
    }
}

fn read(text: &str) -> String {
    read_with(&Memory::default(), text)
}

/// Reads and compares without indentation.
#[track_caller]
fn expect(text: &str, expected: &str) {
    expect_with(&Memory::default(), text, expected);
}

#[track_caller]
fn expect_with(loader: &Memory, text: &str, expected: &str) {
    let plain = |text: &str| -> String {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| format!("{line}\n"))
            .collect()
    };
    assert_eq!(plain(&read_with(loader, text)), plain(expected), "{text}");
}

#[test]
fn blocks_with_and_without_braces() {
    expect("localhost", "localhost {\n}");
    expect(
        "example.org\nwhoami\nlog a b",
        "example.org {\nwhoami\nlog a b\n}",
    );
    expect("a {\n}\nb\nwhoami", "a {\n}\nb {\nwhoami\n}");
    expect("a b,\nc , d {\nwhoami\n}", "a b c d {\nwhoami\n}");
    expect("a\n{\nwhoami\n}", "a {\nwhoami\n}");
    expect("a,b {\n}", "a,b {\n}");
    expect("\"quoted\" {\n}", "\"quoted\" {\n}");
    expect("", "");
    expect("# only a comment", "");
}

#[test]
fn one_line_blocks_mean_what_they_say() {
    expect("a { whoami }", "a {\nwhoami\n}");
    expect(
        "a { cache { success 100 } }",
        "a {\ncache {\nsuccess 100\n}\n}",
    );
    expect("a { cache 30 { } }\nb { }", "a {\ncache 30 {\n}\n}\nb {\n}");
    expect(
        "a {\ncache { success 100 }\nlog\n}",
        "a {\ncache {\nsuccess 100\n}\nlog\n}",
    );
    expect("a {\ncache {}\n}", "a {\ncache {\n}\n}");
    expect("a { whoami } b { log }", "a {\nwhoami\n}\nb {\nlog\n}");
    expect("a { errors\nlog }", "a {\nerrors\nlog\n}");
}

#[test]
fn quoted_braces_are_text() {
    expect(
        "a {\ntemplate \"{\" {\nanswer \"}\" \"import\"\n}\n}",
        "a {\ntemplate \"{\" {\nanswer \"}\" \"import\"\n}\n}",
    );
}

#[test]
fn mistakes_are_all_told() {
    expect(
        "a, {\n}",
        "1:1: another key is missing behind this comma; remove it",
    );
    expect("a,", "1:1: another key is missing behind this comma");
    expect(
        "a {\nwhoami",
        "1:3: this `{` is never closed: a `}` is missing",
    );
    expect(
        "a {\ncache {\nsuccess 100\n}",
        "1:3: this `{` is never closed: a `}` is missing",
    );
    expect(
        "a {\ncache {",
        "1:3: this `{` is never closed: a `}` is missing\n2:7: this `{` is never closed: a `}` is missing",
    );
    expect(
        "a (s) {\n}",
        "1:3: a snippet's name stands alone in front of its `{`, like `(s) {`",
    );
    expect("}", "1:1: unexpected `}`: no block is open here");
    expect(
        "a {\ncache\n{\nsuccess 100\n}\nlog\n}\nb {\n c { d { e\n}\nf\n} }",
        "3:1: unexpected `{`: it stands behind the words of its directive, on the same line
         9:8: a directive's block can hold no further block; quote the `{` if it is text",
    );
    expect(
        "a {\ncache { } log\n}",
        "2:11: unexpected `log` behind the block; start a new line",
    );
    expect(
        "a {\nlog \"never closed\n}\n",
        "2:5: this quote is never closed; write `\\\"` for a quote inside a quoted text",
    );
}

#[test]
fn odd_blocks_are_warned_about() {
    expect(
        "{\nwhoami\n}",
        "warning 1:1: this server block has no key and is left out; write `.` for every name",
    );
    expect(
        "\"\" a {\n}",
        "a {\n}\nwarning 1:1: this key is empty and left out",
    );
    expect(
        "a\nwhoami\n}\nb {\n}",
        "a {\nwhoami\n}\nb {\n}\nwarning 3:1: this `}` ends a server block that no `{` opened; write the `{` behind its keys",
    );
}

#[test]
fn variables_are_put_in() {
    let world = Memory::default()
        .variable("ZONE", "example.org")
        .variable("PORT", "1053")
        .variable("WORDS", "a b # c")
        .variable("NESTED", "x{$PORT}x")
        .variable("$", "dollar");
    expect_with(
        &world,
        "{$ZONE}:{%PORT%} {\n{$ZONE} {$WORDS} \"{$ZONE} {$UNSET}\" {$NESTED} {$$} {$} {%%} {$ZONE {%ZONE {{$PORT}}\n}",
        "example.org:1053 {\nexample.org \"a b # c\" \"example.org \" x1053x dollar {$} {%%} {$ZONE {%ZONE {1053}\n}",
    );
    expect_with(&world, ":{$PORT$} {\n}", ": {\n}");
    expect_with(
        &world,
        "{$UNSET} {\nlog\n}",
        "warning 1:1: this key is empty and left out\nwarning 1:1: this server block has no key and is left out; write `.` for every name",
    );
    expect_with(&world, "a {\nlog {$UNSET}\n}", "a {\nlog \"\"\n}");
}

#[test]
fn variables_that_name_themselves_are_an_error() {
    let world = Memory::default()
        .variable("A", "{$B}")
        .variable("B", "{$A}")
        .variable("BOMB", &"{$BOMB}".repeat(1000));
    let what = "grows without end: its value names itself, or is longer than 65536 octets";
    expect_with(
        &world,
        "a {\nlog {$A}\n}",
        &format!("2:5: environment variable `B` {what}"),
    );
    expect_with(
        &world,
        "a {\nlog {$BOMB}\n}",
        &format!("2:5: environment variable `BOMB` {what}"),
    );
}

#[test]
fn snippets_stand_where_they_are_imported() {
    expect(
        "(common) {\nerrors\nlog {\nclass all\n}\n}\n(nested) {\nimport common\ncache\n}\na {\nimport nested\nwhoami\n}\nb {\nlog {\nclass error\n}\nimport common\n}",
        "a {\nerrors\nlog {\nclass all\n}\ncache\nwhoami\n}\nb {\nlog {\nclass error\n}\nerrors\nlog {\nclass all\n}\n}",
    );
    expect(
        "(lines) {\nsuccess 5\ndenial 6\n}\na {\ncache {\nimport lines\n}\n}",
        "a {\ncache {\nsuccess 5\ndenial 6\n}\n}",
    );
    expect("(s) {\nlog\n}\na { import s }", "a {\nlog\n}");
    expect(
        "(block) {\nexample.org {\nwhoami\n}\n}\nimport block\nb {\n}",
        "example.org {\nwhoami\n}\nb {\n}",
    );
    expect(
        "a } (s) {\nlog\n}\nb { import s } (t) { whoami } import t",
        "a {\n}\nb {\nlog\n}\nwhoami {\n}\nwarning 1:3: this `}` ends a server block that no `{` opened; write the `{` behind its keys",
    );
    // Elsewhere on a line it is a word like others.
    expect(
        "a {\nbasicauth / import password\n}",
        "a {\nbasicauth / import password\n}",
    );
}

#[test]
fn snippets_have_rules() {
    expect(
        "(a) {\nlog\n}\n(a) {\n}",
        "4:1: redeclaration of previously declared snippet a",
    );
    expect(
        "(a) b {\nlog\n}",
        "1:1: a snippet needs its body: write `(a) {`, its lines and `}`",
    );
    expect("(a) {\nlog\nimport a\n}", "3:8: snippet `a` imports itself");
    expect(
        "(a) {\nimport b\n}\n(b) {\nimport a\n}\nx {\nimport a\n}",
        "5:8: snippet `a` imports itself",
    );
    expect(
        "(a) {\nlog",
        "1:5: this `{` is never closed: a `}` is missing",
    );
    expect(
        "x {\nimport commn\n}\n(common) {\nlog\n}",
        "2:8: file to import not found: commn",
    );
    expect(
        "(common) {\nlog\n}\nx {\nimport commn\n}",
        "5:8: file to import not found: commn; did you mean `common`?",
    );
    expect(
        "x {\nimport\nimport a b\nimport \"\"\n}",
        "2:1: import requires a file, a glob pattern or the name of a snippet\n3:10: import takes only one argument (a file, a glob pattern or a snippet); write one import a line\n4:8: import requires a non-empty file name",
    );
}

#[test]
fn snippets_that_double_are_bounded() {
    let mut text = String::from("(s0) {\nlog\n}\n");
    for n in 1..64 {
        text.push_str(&format!(
            "(s{n}) {{\nimport s{}\nimport s{}\n}}\n",
            n - 1,
            n - 1
        ));
    }
    text.push_str("a {\nimport s63\n}\n");
    assert!(read(&text).contains("maximum number of imports (10000) exceeded"));
}

#[test]
fn files_are_imported() {
    let world = Memory::default()
        .file("/etc/dns/parts/two.blk", "two {\nwhoami\n}\n")
        .file(
            "/etc/dns/parts/one.blk",
            "one {\nimport ../shared.inc\nimport more/*.inc\n}",
        )
        .file("/etc/dns/shared.inc", "\u{feff}log # no newline at its end")
        .file("/etc/dns/parts/more/b.inc", "cache")
        .file("/etc/dns/parts/more/a.inc", "errors {\n# deep\n}")
        .file("/etc/dns/broken.inc", "cache {\nsuccess 1")
        .file("/etc/dns/self.inc", "log\nimport self.inc")
        .variable("FILE", "shared.inc");
    let one = "one {\nlog\nerrors {\n}\ncache\n}";
    expect_with(
        &world,
        "import parts/*.blk",
        &format!("{one}\ntwo {{\nwhoami\n}}"),
    );
    expect_with(
        &world,
        "import p*s/?ne.blk\nz {\n}",
        &format!("{one}\nz {{\n}}"),
    );
    expect_with(
        &world,
        "a {\nimport {$FILE}\nimport /etc/dns/./parts/../shared.inc\n}",
        "a {\nlog\nlog\n}",
    );
    expect_with(
        &world,
        "a {\nimport nothing/*\n}",
        "a {\n}\nwarning 2:8: no files matching import glob pattern: nothing/*",
    );
    expect_with(
        &world,
        "a {\nimport missing.inc\n}",
        "2:8: file to import not found: missing.inc",
    );
    expect_with(
        &world,
        "a {\nimport parts\n}",
        "2:8: could not import /etc/dns/parts: is a directory; write `parts/*`",
    );
    let mixed = Memory::default()
        .file("/etc/dns/mixed/x/file", "")
        .file("/etc/dns/mixed/y", "log");
    expect_with(
        &mixed,
        "a {\nimport mixed/*\n}",
        "2:8: could not import /etc/dns/mixed/x: is a directory; write `mixed/*/*`",
    );
    expect_with(
        &world,
        "a {\nimport [ab]\n}",
        "2:8: a glob pattern knows `*` and `?` alone, but has others: [ab]",
    );
    expect_with(
        &world,
        "a {\nimport self.inc\n}",
        "/etc/dns/self.inc2:8: file `/etc/dns/self.inc` imports itself",
    );
    expect_with(
        &world,
        "a {\nimport broken.inc\n}",
        "1:3: this `{` is never closed: a `}` is missing",
    );
}

#[test]
fn many_files_of_one_glob_stand_beside_each_other() {
    let world = (0..300).fold(Memory::default(), |world, n| {
        world.file(&format!("/etc/dns/many/{n:03}"), "import ../one")
    });
    let world = world.file("/etc/dns/one", "log");
    let text = read_with(&world, "a {\nimport many/*\n}");
    assert_eq!(text.matches("log").count(), 300, "{text}");
}

#[test]
fn depth_and_number_of_errors_are_bounded() {
    let world = (0..200).fold(Memory::default(), |world, n| {
        world.file(&format!("/etc/dns/{n}"), &format!("import {}", n + 1))
    });
    expect_with(
        &world,
        "import 0",
        "/etc/dns/991:8: maximum import depth (100) exceeded",
    );
    let text = "a {\n{\n}\n}\n".repeat(2000);
    assert!(
        read(&text).ends_with("\nand 1000 more\n"),
        "{}",
        read(&text).lines().last().unwrap()
    );
}

#[test]
fn an_import_starts_and_ends_a_line() {
    let world = Memory::default().file("/etc/dns/f", "cache 30");
    expect_with(
        &world,
        "a {\nlog\nimport f\nwhoami\n}",
        "a {\nlog\ncache 30\nwhoami\n}",
    );
    expect_with(&world, "import f\nwhoami", "cache 30 {\nwhoami\n}");
}

#[test]
fn the_recorded_configuration_of_coredns_parses() {
    let world = Memory::default()
        .file(
            "/etc/dns/parts/last.conf",
            "last.test:53 {\n    import more/deep.inc\n}\n",
        )
        .file(
            "/etc/dns/parts/more/deep.inc",
            "template IN TXT {\n    answer \"{{ .Name }} 7 IN TXT deep\"\n}\n",
        )
        .variable("ZONE", "envzone.test")
        .variable("PLUGIN", "template")
        .variable("TEXT", "text from the environment")
        .variable("FILE", "parts/last.conf");
    expect_with(
        &world,
        "(common) {\n    errors   # trailing comment\n    # a whole line\n}\n{$ZONE}:53 {\n    import common\n    {$PLUGIN} IN {%TYPES%} {\n        answer \"{{ .Name }} 7 IN TXT \\\"{$TEXT}\\\"\"\n    }\n}\nimport {$FILE}\nfirst.test:53,\nsecond.test:53 third.test:53 {\n\ttemplate\tIN\tTXT\t{\n        answer \"{{ .Name }} 7 IN TXT\n spread over lines\"\n    }\n}\n",
        "envzone.test:53 {\nerrors\ntemplate IN \"\" {\nanswer \"{{ .Name }} 7 IN TXT \\\"text from the environment\\\"\"\n}\n}
         last.test:53 {\ntemplate IN TXT {\nanswer \"{{ .Name }} 7 IN TXT deep\"\n}\n}
         first.test:53 second.test:53 third.test:53 {\ntemplate IN TXT {\nanswer \"{{ .Name }} 7 IN TXT\nspread over lines\"\n}\n}",
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(512))]

    #[test]
    fn parsing_never_panics(text in "(?s)([ \n\"\\\\{}#,]|a|import |\\(s\\) \\{|\\{\\$A\\}|.){0,80}") {
        let world = Memory::default().variable("A", "{%A%} import {").file("/etc/dns/a", "import s\n}");
        let _ = parse("Dnsfile", &text, &world);
    }

    #[test]
    fn a_printed_dnsfile_reads_as_itself(text in "([ \n\"\\\\{}#,]|\\{\n|\n\\}\n|\"[a {\\\\]*\"|[a-c]+ |\\(s\\) ){0,60}") {
        if let Ok(dnsfile) = parse("Dnsfile", &text, &Memory::default()) {
            let printed = dnsfile.to_string();
            let again = parse("Dnsfile", &printed, &Memory::default());
            let again = again.map(|dnsfile| dnsfile.to_string()).map_err(|rejected| rejected.errors);
            proptest::prop_assert_eq!(again, Ok(printed));
        }
    }
}
