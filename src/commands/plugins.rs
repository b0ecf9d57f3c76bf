//! `skeindns plugins` and `-plugins`: the table.

use std::fmt::Write as _;

use skein_plugins::kit::plugin::Plugin;

/// The table, outermost first, with other names and what each does.
pub(crate) fn plugins(table: &[&'static Plugin]) -> String {
    let title = |plugin: &Plugin| match plugin.aliases {
        [] => plugin.name.to_owned(),
        aliases => format!("{} ({})", plugin.name, aliases.join(", ")),
    };
    let width = table
        .iter()
        .map(|plugin| title(plugin).len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for plugin in table {
        // Writing into a String cannot fail.
        writeln!(text, "{:width$}  {}", title(plugin), plugin.summary).ok();
    }
    text
}

/// The names alone, sorted, with an empty line behind them as in CoreDNS.
pub(crate) fn names(table: &[&'static Plugin]) -> String {
    let mut names: Vec<&str> = table.iter().map(|plugin| plugin.name).collect();
    names.sort_unstable();
    format!("{}\n\n", names.join("\n"))
}
