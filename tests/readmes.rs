//! Documents are tested: every ```` ```dnsfile ```` block loads, every ```` ```dnsfile-error ```` block does not, every ```` ```dns ````
//! conversation comes out, and each plugin's README has its headings and says in its Options table what the plugin's table says.

use std::path::{Path, PathBuf};

use skein_plugins::PLUGINS;
use skein_plugins::kit::options::{Arg, Count};
use skein_plugins::kit::testing::scenario;
use skein_plugins::kit::testing::server::check;

const HEADINGS: &[&str] = &[
    "Name",
    "Description",
    "Syntax",
    "Options",
    "Examples",
    "Metrics",
    "Errors",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files with one of these endings, outside of what is built.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root().to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", "skeindns-data"].contains(&name.as_str()) {
                    todo.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a document is UTF-8")
}

/// Fenced blocks of a language: line of the fence, text.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(fence) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let block: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| line.trim() != "```")
            .map(|line| format!("{}\n", line.get(indent..).unwrap_or_default()))
            .collect();
        if fence.trim() == language {
            found.push((at + 1, block));
        }
    }
    found
}

#[test]
fn every_example_loads() {
    let mut failures = Vec::new();
    let mut count = 0;
    for path in files(&[".md"]) {
        for (line, block) in blocks(&read(&path), "dnsfile") {
            count += 1;
            if let Err(errors) = check(PLUGINS, &block) {
                failures.push(format!("{}:{line}\n{errors}", path.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count > 10, "only {count} examples found");
}

#[test]
fn every_conversation_in_a_document_comes_out() {
    let mut count = 0;
    for path in files(&[".md"]) {
        for (line, block) in blocks(&read(&path), "dns") {
            count += 1;
            if let Some(failure) = scenario::run_text(&block, PLUGINS, false).failures.first() {
                panic!(
                    "{}:{}: {}\n{}",
                    path.display(),
                    line + failure.line,
                    failure.step,
                    failure.what
                );
            }
        }
    }
    assert!(count > 0, "no conversation found");
}

#[test]
fn every_example_of_an_error_fails() {
    for path in files(&[".md"]) {
        for (line, block) in blocks(&read(&path), "dnsfile-error") {
            let at = path.display();
            assert!(check(PLUGINS, &block).is_err(), "{at}:{line}: it loads");
        }
    }
}

#[test]
fn the_example_dnsfiles_load() {
    for path in files(&["Dnsfile.example", ".Dnsfile"]) {
        if let Err(errors) = check(PLUGINS, &read(&path)) {
            panic!("{}\n{errors}", path.display());
        }
    }
}

#[test]
fn readmes_have_their_headings_in_order() {
    for plugin in PLUGINS {
        let path = root().join("plugins").join(plugin.name).join("README.md");
        assert!(path.is_file(), "{} is missing", path.display());
        let text = read(&path);
        let title = text.lines().next().unwrap_or_default();
        assert_eq!(title, format!("# {}", plugin.name), "{}", path.display());
        let headings: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .collect();
        assert_eq!(headings, HEADINGS, "{}", path.display());
    }
}

#[test]
fn options_tables_say_what_the_plugins_table_says() {
    let mut missing = Vec::new();
    for plugin in PLUGINS {
        let path = root().join("plugins").join(plugin.name).join("README.md");
        let text = read(&path);
        let section = text.split_once("## Options\n").map_or("", |(_, rest)| {
            rest.split("\n## ").next().unwrap_or_default()
        });
        for option in plugin.options.iter().filter(|option| !option.ignored) {
            let row = format!(
                "| `{}` |{} | {} | {} |",
                option.name,
                arguments(option.args),
                escaped(option.default),
                escaped(option.help)
            );
            if !section
                .lines()
                .any(|line| line.replace("|  |", "| |") == row)
            {
                missing.push(format!("{}: {row}", path.display()));
            }
        }
        let known = |line: &&str| {
            !plugin
                .options
                .iter()
                .any(|option| line.starts_with(&format!("| `{}` |", option.name)))
        };
        // Rows of the options' table only: four columns, the first a word in backquotes.
        let stray = section
            .lines()
            .filter(|line| {
                line.starts_with("| `")
                    && line.matches('|').count() - line.matches("\\|").count() == 5
            })
            .find(known);
        assert_eq!(stray, None, "{}: no such option", path.display());
    }
    assert!(
        missing.is_empty(),
        "Options tables lack\n{}",
        missing.join("\n")
    );
}

fn arguments(args: &[Arg]) -> String {
    let words = args.iter().map(|arg| match arg.count {
        Count::One => arg.name.to_owned(),
        Count::Optional => format!("[{}]", arg.name),
        Count::Any => format!("[{}...]", arg.name),
        // A name of several words is a whole syntax of its own.
        Count::Some if !arg.name.contains(' ') => format!("{}...", arg.name),
        Count::Some => arg.name.to_owned(),
    });
    // Each with a blank before it, so that a cell without arguments has one.
    escaped(&words.map(|word| format!(" {word}")).collect::<String>())
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}
