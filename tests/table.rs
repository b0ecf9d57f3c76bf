//! Rules over the table of plugins: what everyone who adds a row should find out from a test and not from a user.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use regex::Regex;
use skein_plugins::PLUGINS;

fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins")
}

/// Folders of plugins: those with a `mod.rs`, without the kit.
fn folders() -> BTreeSet<String> {
    std::fs::read_dir(plugins())
        .expect("plugins/ is beside this file's folder")
        .flatten()
        .filter(|entry| entry.path().join("mod.rs").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "kit")
        .collect()
}

/// The source of a plugin, all files, without its tests.
fn source(plugin: &str) -> String {
    let mut text = String::new();
    let mut todo = vec![plugins().join(plugin)];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let file = std::fs::read_to_string(&path).expect("a source file is UTF-8");
                text += file
                    .split_once("#[cfg(test)]\nmod tests")
                    .map_or(file.as_str(), |(code, _)| code);
            }
        }
    }
    text
}

#[test]
fn names_and_aliases_are_unique_words() {
    let mut seen = HashSet::new();
    for plugin in PLUGINS {
        for name in std::iter::once(&plugin.name).chain(plugin.aliases) {
            assert!(seen.insert(*name), "{name} is in the table twice");
            assert!(
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}: a plugin's name is one lower-case word"
            );
        }
    }
}

#[test]
fn every_folder_is_in_the_table_under_its_name() {
    let table: BTreeSet<String> = PLUGINS
        .iter()
        .map(|plugin| plugin.name.to_owned())
        .collect();
    assert_eq!(folders(), table);
}

#[test]
fn summaries_are_short_and_lower_case() {
    for plugin in PLUGINS {
        let (name, summary) = (plugin.name, plugin.summary);
        let first = summary.chars().next();
        assert!(
            (5..=80).contains(&summary.len()),
            "{name}: {} octets of summary",
            summary.len()
        );
        assert!(
            !summary.ends_with('.'),
            "{name}: a summary has no full stop"
        );
        let word = summary.split(' ').next().unwrap_or_default();
        assert!(
            first.is_some_and(char::is_lowercase) || word.chars().all(char::is_uppercase),
            "{name}: a summary starts lower-case: {summary}"
        );
    }
}

#[test]
fn options_have_a_help_and_a_default() {
    for plugin in PLUGINS {
        let mut seen = HashSet::new();
        for option in plugin.options {
            let at = format!("{} {}", plugin.name, option.name);
            assert!(seen.insert(option.name), "{at} is declared twice");
            assert!(!option.help.is_empty(), "{at} has no help");
            assert!(!option.help.ends_with('.'), "{at}: a help has no full stop");
            assert!(
                option.ignored || !option.default.is_empty(),
                "{at} does not say its default"
            );
        }
    }
}

#[test]
fn every_row_says_why_it_stands_there() {
    let lib = std::fs::read_to_string(plugins().join("lib.rs")).expect("plugins/lib.rs is there");
    for plugin in PLUGINS {
        // `loop` is a keyword, its module `r#loop`.
        let row = lib.lines().find(|line| {
            let line = line.trim_start().replace("&r#", "&");
            line.starts_with(&format!("&{}::PLUGIN,", plugin.name))
        });
        let row =
            row.unwrap_or_else(|| panic!("{}: its row is not written as the others", plugin.name));
        assert!(
            row.contains(" // "),
            "{}: its row gives no reason",
            plugin.name
        );
    }
}

#[test]
fn every_metric_is_in_its_readme() {
    let metric = Regex::new(r#""((?:coredns|skeindns)_[a-z0-9_]+)""#).expect("a literal");
    for plugin in folders() {
        let readme =
            std::fs::read_to_string(plugins().join(&plugin).join("README.md")).unwrap_or_default();
        for found in metric.captures_iter(&source(&plugin)) {
            let name = &found[1];
            assert!(
                readme.contains(&format!("`{name}`")) || readme.contains(&format!("`{name}{{")),
                "plugins/{plugin}/README.md does not document {name}"
            );
        }
    }
}

#[test]
fn our_own_metrics_are_named_for_their_plugin() {
    let metric = Regex::new(r#""skeindns_([a-z0-9_]+)""#).expect("a literal");
    for plugin in folders() {
        for found in metric.captures_iter(&source(&plugin)) {
            let rest = &found[1];
            assert!(
                rest.starts_with(&format!("{plugin}_")) || rest.starts_with("server_"),
                "plugins/{plugin}: skeindns_{rest} should start with skeindns_{plugin}_"
            );
        }
    }
}
