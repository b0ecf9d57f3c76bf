//! loadbalance: the order of addresses, another one in every answer.
//!
//! What is reordered is the reply on its way out: a cache behind keeps what it has. See `order` for how it is done.

mod order;

use ipnet::IpNet;

use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::handler::{Edit, Handler, Next, Served};
use crate::kit::options::{Arg, Checked, Kind, Opt};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::response::Response;
use crate::kit::setup::ServerSetup;
use crate::kit::wire::{Rcode, Rtype};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "loadbalance",
    aliases: &[],
    summary: "puts the addresses of an answer in another order each time",
    arguments: &[
        Arg::optional("POLICY", Kind::Choice(&["round_robin", "weighted"])),
        Arg::optional("FILE", Kind::Path),
    ],
    options: &[Opt::new(
        "prefer",
        &[Arg::some("CIDR", Kind::Text)],
        "none",
        "addresses in these networks come first, those of the first network before those of the second and so on",
    )
    .adds()],
    free_block: false,
    repeat: Repeat::Once,
    setup,
};

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    let Some(directive) = directives.first() else {
        return Ok(());
    };
    let policy = directive.arg("POLICY");
    let file = directive.arg("FILE");
    if let Some(policy) = policy
        && policy.text() == "weighted"
    {
        let what = "the policy `weighted` is not there yet; `round_robin` is";
        return Err(SetupError::at(policy.span(), what).into());
    }
    if let Some(file) = file {
        let what = match policy {
            Some(_) => "round_robin takes no more words".to_owned(),
            None => format!("unknown policy `{}`; write `round_robin`", file.text()),
        };
        return Err(SetupError::at(file.span(), what).into());
    }
    let mut errors = SetupErrors::default();
    let mut preferred = Vec::new();
    for value in directive
        .options("prefer")
        .flat_map(|line| line.args("CIDR"))
    {
        match value.text().parse::<IpNet>() {
            Ok(network) => preferred.push(network.trunc()),
            Err(_) => {
                let what = format!(
                    "invalid CIDR `{}`; write a network such as 192.0.2.0/24",
                    value.text()
                );
                errors.0.push(SetupError::at(value.span(), what));
            }
        }
    }
    if !errors.0.is_empty() {
        return Err(errors);
    }
    server.chain(Loadbalance { preferred });
    Ok(())
}

/// The plugin at work in a server block.
struct Loadbalance {
    preferred: Vec<IpNet>,
}

impl Handler for Loadbalance {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        next.serve(query).then(self)
    }
}

impl Edit for Loadbalance {
    fn edit(&self, mut response: Response) -> Response {
        let is_transfer = matches!(response.query().qtype(), Rtype::AXFR | Rtype::IXFR);
        if response.rcode() == Rcode::NOERROR && !is_transfer {
            order::shuffle(response.wire_mut(), &self.preferred);
        }
        response
    }
}
