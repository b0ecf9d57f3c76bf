//! `order { cache before etcd }`: another order of handlers in one server block than the table's.

use crate::kit::dnsfile::{Directive, Word};
use crate::kit::errors::SetupError;
use crate::kit::plugin::Plugin;

use super::blocks::{find, unknown};

/// Its word in a server block. Not a plugin: it belongs to the block itself.
pub(super) const DIRECTIVE: &str = "order";

/// One line: where the first plugin goes.
#[derive(Clone, Copy)]
struct Move {
    what: &'static Plugin,
    is_before: bool,
    which: &'static Plugin,
}

/// Moves plugins as the directive's lines say, one after the other; in the end all of them must hold.
pub(super) fn apply(
    directive: &Directive,
    order: &mut Vec<&'static Plugin>,
    errors: &mut Vec<SetupError>,
) {
    let lines = directive.block.as_deref().unwrap_or_default();
    if lines.is_empty() || !directive.arguments.is_empty() {
        let what = "order takes a block: write `order { cache before etcd }`";
        errors.push(SetupError::at(directive.name.span, what));
        return;
    }
    let mut moves: Vec<(Move, &Word)> = Vec::new();
    for line in lines {
        match read(&line.words, order) {
            Ok(wanted) => {
                wanted.apply(order);
                moves.extend(line.words.first().map(|word| (wanted, word)));
            }
            Err(error) => errors.push(error),
        }
    }
    for (wanted, word) in moves.iter().filter(|(wanted, _)| !wanted.holds(order)) {
        let what = format!(
            "this line contradicts a later one: `{}` cannot stand {} `{}`",
            wanted.what.name,
            if wanted.is_before { "before" } else { "after" },
            wanted.which.name
        );
        errors.push(SetupError::at(word.span, what));
    }
}

fn read(words: &[Word], table: &[&'static Plugin]) -> Result<Move, SetupError> {
    let plugin = |word: &Word| find(table, &word.text).ok_or_else(|| unknown(table, word));
    let [what, relation, which] = words else {
        let at = words.first().map(|word| word.span);
        let what = "write `PLUGIN before PLUGIN` or `PLUGIN after PLUGIN`, one a line";
        return Err(SetupError {
            at,
            ..SetupError::general(what)
        });
    };
    let is_before = match relation.text.as_str() {
        "before" => true,
        "after" => false,
        other => {
            let what = format!("write `before` or `after`, got `{other}`");
            return Err(SetupError::at(relation.span, what));
        }
    };
    let wanted = Move {
        what: plugin(what)?,
        is_before,
        which: plugin(which)?,
    };
    if wanted.what.name == wanted.which.name {
        let what = "a plugin cannot stand before or after itself";
        return Err(SetupError::at(which.span, what));
    }
    Ok(wanted)
}

impl Move {
    /// Takes the plugin out and puts it right beside the other.
    fn apply(self, order: &mut Vec<&'static Plugin>) {
        order.retain(|plugin| plugin.name != self.what.name);
        let which = order
            .iter()
            .position(|plugin| plugin.name == self.which.name)
            .unwrap_or(order.len());
        let place = which + usize::from(!self.is_before);
        order.insert(place.min(order.len()), self.what);
    }

    fn holds(self, order: &[&'static Plugin]) -> bool {
        let place = |wanted: &Plugin| order.iter().position(|plugin| plugin.name == wanted.name);
        (place(self.what) < place(self.which)) == self.is_before
    }
}
