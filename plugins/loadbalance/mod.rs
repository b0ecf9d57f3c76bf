//! loadbalance: the order of addresses, another one in every answer.
//!
//! What is reordered is the reply on its way out: a cache behind keeps what it has. See `order` for how it is done.

mod order;
mod weights;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ipnet::IpNet;

use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::handler::{Edit, Handler, Next, Served};
use crate::kit::options::{Arg, Checked, Kind, Opt, Value};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::Query;
use crate::kit::response::Response;
use crate::kit::setup::ServerSetup;
use crate::kit::wire::{Rcode, Rtype};

use order::Order;
use weights::Weights;

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "loadbalance",
    aliases: &[],
    summary: "puts the addresses of an answer in another order each time",
    arguments: &[
        Arg::optional("POLICY", Kind::Choice(&["round_robin", "weighted"])),
        Arg::optional("FILE", Kind::Path),
    ],
    options: &[
        Opt::new(
            "prefer",
            &[Arg::some("CIDR", Kind::Text)],
            "none",
            "addresses in these networks come first, those of the first network before those of the second and so on; with `round_robin` only",
        )
        .adds(),
        Opt::new(
            "reload",
            &[Arg::one(
                "DURATION",
                Kind::Duration {
                    min: Duration::ZERO,
                    max: Duration::from_secs(366 * 24 * 3600),
                },
            )],
            "30s",
            "how often FILE is looked at for changes, 0 for never; with `weighted` only",
        ),
    ],
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
    match (policy, file) {
        (Some(policy), file) if policy.text() == "weighted" => {
            return weighted(directive, policy, file, server);
        }
        (Some(_), Some(file)) => {
            return Err(SetupError::at(file.span(), "round_robin takes no more words").into());
        }
        (None, Some(file)) => {
            let what = format!(
                "unknown policy `{}`; write `round_robin` or `weighted FILE`",
                file.text()
            );
            return Err(SetupError::at(file.span(), what).into());
        }
        _ => {}
    }
    if let Some(reload) = directive.option("reload") {
        let what = "reload belongs to `weighted FILE`; round_robin reads no file";
        return Err(SetupError::at(reload.span(), what).into());
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
    server.chain(Loadbalance {
        policy: Policy::RoundRobin(preferred),
    });
    Ok(())
}

fn weighted(
    directive: &Checked,
    policy: &Value,
    file: Option<&Value>,
    server: &mut ServerSetup<'_>,
) -> Result<(), SetupErrors> {
    let Some(file) = file else {
        let what = "the file with the weights is missing; write `weighted FILE`";
        return Err(SetupError::at(policy.span(), what).into());
    };
    if let Some(prefer) = directive.option("prefer") {
        let what = "prefer belongs to `round_robin`; weights decide here";
        return Err(SetupError::at(prefer.span(), what).into());
    }
    let every = directive
        .option("reload")
        .and_then(|line| line.arg("DURATION"))
        .map_or(Duration::from_secs(30), |every| every.duration());
    let path = server.path(file.text());
    let (text, weights) = match read(&path) {
        Ok(text) => {
            let weights = Weights::parse(&text).map_err(|what| {
                SetupError::at(file.span(), format!("{}: {what}", path.display()))
            })?;
            (text, weights)
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !every.is_zero() => {
            let what = format!(
                "{} is missing: all addresses weigh 1 until it is there",
                path.display()
            );
            server.warn(file.span(), what);
            (String::new(), Weights::default())
        }
        Err(error) => {
            let what = format!("cannot read {}: {error}", path.display());
            return Err(SetupError::at(file.span(), what).into());
        }
    };
    let weights = Arc::new(RwLock::new(weights));
    if !every.is_zero() {
        let watched = Arc::clone(&weights);
        server.background("loadbalance", watch(path, text, every, watched));
    }
    server.chain(Loadbalance {
        policy: Policy::Weighted(weights),
    });
    Ok(())
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    let limit = weights::FILE_OCTETS_MAX as u64;
    file.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        let what = format!("larger than {limit} octets");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}

/// Takes a changed file over; one that is wrong or gone changes nothing, and is told once.
async fn watch(path: PathBuf, mut text: String, every: Duration, weights: Arc<RwLock<Weights>>) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(every).await;
        let wrong = match read(&path) {
            Ok(new) if new == text => continue,
            Ok(new) => {
                let parsed = Weights::parse(&new);
                text = new;
                match parsed {
                    Ok(new) => {
                        *weights.write().unwrap_or_else(PoisonError::into_inner) = new;
                        told.clear();
                        continue;
                    }
                    Err(what) => what,
                }
            }
            Err(error) => error.to_string(),
        };
        if wrong != told {
            tracing::warn!(
                "plugin/loadbalance: {}: {wrong}; the weights stay as they are",
                path.display()
            );
            told = wrong;
        }
    }
}

/// The plugin at work in a server block.
struct Loadbalance {
    policy: Policy,
}

enum Policy {
    RoundRobin(Vec<IpNet>),
    // Read by every query of every worker, written when the file changes: a lock is what this rare policy costs.
    Weighted(Arc<RwLock<Weights>>),
}

impl Handler for Loadbalance {
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c> {
        next.serve(query).then(self)
    }
}

impl Edit for Loadbalance {
    fn edit(&self, mut response: Response) -> Response {
        if response.rcode() != Rcode::NOERROR {
            return response;
        }
        match (&self.policy, response.query().qtype()) {
            (_, Rtype::AXFR | Rtype::IXFR) => {}
            (Policy::RoundRobin(preferred), _) => {
                order::shuffle(response.wire_mut(), Order::Random(preferred));
            }
            (Policy::Weighted(weights), Rtype::A | Rtype::AAAA | Rtype::SRV) => {
                let weights = weights.read().unwrap_or_else(PoisonError::into_inner);
                order::shuffle(response.wire_mut(), Order::Weighted(&weights));
            }
            (Policy::Weighted(_), _) => {}
        }
        response
    }
}
