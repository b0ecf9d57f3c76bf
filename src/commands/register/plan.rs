//! What is to be written so that etcd has what we want: from what we want, what is there, and what to do about others. No network here.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{Config, Layout, OnConflict, PtrConflict};
use super::records::{Kind, Mark, Records, Wanted, reverse_key};

/// A key as etcd has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Entry {
    pub(super) value: Vec<u8>,
    /// When it was made: smaller is earlier.
    pub(super) created: i64,
    /// When it was written last; a change is made only if this is still so.
    pub(super) version: i64,
    /// Whether it ends when and only when we say so: it hangs on our lease, or has a TTL of its own.
    pub(super) settled: bool,
}

/// What etcd has, by key.
pub(super) type Entries = BTreeMap<String, Entry>;

/// A change that is made if the key is still as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Write; without a version it must not exist.
    Put {
        key: String,
        value: String,
        version: Option<i64>,
    },
    /// Delete.
    Delete { key: String, version: i64 },
}

/// A record that we want and another has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) key: String,
    /// The other's mark.
    pub(super) by: Option<String>,
    /// It says what ours would say.
    pub(super) same: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// In this order.
    pub(super) changes: Vec<Change>,
    pub(super) held: Vec<Held>,
    /// Another owner has taken the name for itself: we withdraw until it goes.
    pub(super) deposed_by: Option<String>,
}

/// Why nothing is written at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) String);

/// How we stand.
pub(super) struct Standing<'s> {
    pub(super) config: &'s Config,
    /// We come new to the name: with `takeover` we take it, with `fail` we look whether it is free.
    pub(super) claiming: bool,
    /// Keys that we have written and not deleted.
    pub(super) written: &'s BTreeSet<String>,
    /// Whether a key can have a value and keys below it (v3).
    pub(super) nests: bool,
}

/// Compares.
pub(super) fn plan(
    records: &Records,
    entries: &Entries,
    standing: &Standing<'_>,
) -> Result<Plan, Refusal> {
    let config = standing.config;
    let mut plan = Plan::default();
    let rivals = rivals(records, entries, &config.owner);
    let mut cleared = BTreeSet::new();
    if standing.claiming
        && config.on_conflict == OnConflict::Fail
        && let Some((key, mark)) = rivals.first()
    {
        return Err(refusal(
            key,
            mark,
            "write --on-conflict join to add to it, or takeover to replace it",
        ));
    }
    if standing.claiming && config.on_conflict == OnConflict::Takeover {
        for (key, _) in &rivals {
            cleared.insert((*key).clone());
        }
    } else if let Some((_, mark)) = rivals.iter().find(|(_, mark)| mark.exclusive) {
        plan.deposed_by = Some(mark.owner.clone().unwrap_or_default());
    }
    let nothing = BTreeMap::new();
    let wanted = match plan.deposed_by {
        Some(_) => &nothing,
        None => &records.wanted,
    };
    in_the_way(records, entries, standing, &mut cleared)?;
    // What is in the way goes first: where a key is a value or a folder, nothing can be put below it otherwise.
    for key in &cleared {
        if let Some(entry) = entries.get(key).filter(|_| !wanted.contains_key(key)) {
            plan.changes.push(Change::Delete {
                key: key.clone(),
                version: entry.version,
            });
        }
    }
    for (key, want) in wanted {
        match entries.get(key) {
            None => plan.changes.push(put(key, want, None)),
            Some(entry) => one(key, want, entry, standing, &mut plan)?,
        }
    }
    for (key, entry) in strays(records, entries, wanted, standing) {
        if !cleared.contains(key) {
            plan.changes.push(Change::Delete {
                key: key.clone(),
                version: entry.version,
            });
        }
    }
    Ok(plan)
}

fn put(key: &str, want: &Wanted, version: Option<i64>) -> Change {
    Change::Put {
        key: key.to_owned(),
        value: want.value.clone(),
        version,
    }
}

/// A key that we want and that is there already.
fn one(
    key: &str,
    want: &Wanted,
    entry: &Entry,
    standing: &Standing<'_>,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let config = standing.config;
    let mark = Mark::of(&entry.value);
    if mark.owner.as_deref() == Some(&config.owner) {
        if !entry.settled || entry.value != want.value.as_bytes() {
            plan.changes.push(put(key, want, Some(entry.version)));
        }
        return Ok(());
    }
    // Who has lost a key does not fight for it: two machines that both think it theirs would write for ever.
    let lost = standing.written.contains(key) && !standing.claiming;
    let same = mark.host.is_some() && mark.host == Mark::of(want.value.as_bytes()).host;
    let take = match want.kind {
        // The address is at our interface, so the other's record is old.
        Kind::Address => true,
        Kind::Reverse => match config.ptr_conflict {
            PtrConflict::Keep => false,
            PtrConflict::Replace => true,
            PtrConflict::Fail if standing.claiming && !same => {
                return Err(refusal(
                    key,
                    &mark,
                    "write --ptr-conflict keep to leave it, or replace",
                ));
            }
            PtrConflict::Fail => false,
        },
        // What an operator wrote by hand for this very address is taken over as it is.
        Kind::Single if same && mark.owner.is_none() => true,
        Kind::Single if config.on_conflict != OnConflict::Takeover => {
            return Err(refusal(
                key,
                &mark,
                "--layout single cannot join; write --on-conflict takeover, or --layout instances",
            ));
        }
        Kind::Further if config.on_conflict == OnConflict::Fail && standing.claiming => {
            return Err(refusal(
                key,
                &mark,
                "write --on-conflict takeover to replace it",
            ));
        }
        Kind::Single | Kind::Further => config.on_conflict == OnConflict::Takeover,
    };
    match take && !lost {
        true => plan.changes.push(put(key, want, Some(entry.version))),
        false => plan.held.push(Held {
            key: key.to_owned(),
            by: mark.owner,
            same,
        }),
    }
    Ok(())
}

fn refusal(key: &str, mark: &Mark, instead: &str) -> Refusal {
    let owner = mark
        .owner
        .as_ref()
        .map_or_else(String::new, |owner| format!(" ({owner})"));
    Refusal(format!("{key} belongs to another{owner}; {instead}"))
}

/// Other owners' address records at our names: at the name itself, or one step below it.
pub(super) fn rivals<'e>(
    records: &Records,
    entries: &'e Entries,
    owner: &str,
) -> Vec<(&'e String, Mark)> {
    let rivals = entries.iter().filter(|(key, _)| is_at_home(records, key));
    let rivals = rivals.map(|(key, entry)| (key, Mark::of(&entry.value)));
    rivals
        .filter(|(_, mark)| {
            let is_address = mark
                .host
                .as_ref()
                .is_some_and(|host| host.parse::<std::net::IpAddr>().is_ok());
            is_address && mark.owner.as_deref() != Some(owner)
        })
        .collect()
}

/// Whether a key is a name of ours, or one step below it.
fn is_at_home(records: &Records, key: &str) -> bool {
    records.homes.iter().any(|home| match below(key, home) {
        Some(rest) => !rest.contains('/'),
        None => key == home,
    })
}

/// What is behind a name's key and a slash.
fn below<'k>(key: &'k str, home: &str) -> Option<&'k str> {
    key.strip_prefix(home)?.strip_prefix('/')
}

fn is_ours(entry: &Entry, owner: &str) -> bool {
    Mark::of(&entry.value).owner.as_deref() == Some(owner)
}

/// What keeps us from writing where a value excludes keys below it, and what a single record would hide.
fn in_the_way(
    records: &Records,
    entries: &Entries,
    standing: &Standing<'_>,
    cleared: &mut BTreeSet<String>,
) -> Result<(), Refusal> {
    let config = standing.config;
    for home in &records.homes {
        match (config.layout, entries.get(home)) {
            (Layout::Single, _) => {
                let children = entries.iter().filter(|(key, _)| below(key, home).is_some());
                for (key, entry) in children {
                    if is_at_home(records, key) && is_ours(entry, &config.owner) {
                        cleared.insert(key.clone());
                    } else if !cleared.contains(key) {
                        return Err(Refusal(format!(
                            "{key} is below {home}, which --layout single wants for itself; write --layout instances, or delete it"
                        )));
                    }
                }
            }
            (Layout::Instances, Some(entry)) => {
                if is_ours(entry, &config.owner) || cleared.contains(home) {
                    cleared.insert(home.clone());
                } else if !standing.nests {
                    let instead =
                        "delete it, or write --on-conflict takeover: v2 has no keys below a value";
                    return Err(refusal(home, &Mark::of(&entry.value), instead));
                }
            }
            (Layout::Instances, None) => {}
        }
    }
    Ok(())
}

/// Records with our mark that we no longer want: at our names, among those we wrote, and the reverse records of our former addresses. What this
/// machine has at other names, an agent of its own looks after.
fn strays<'e>(
    records: &Records,
    entries: &'e Entries,
    wanted: &BTreeMap<String, Wanted>,
    standing: &Standing<'_>,
) -> Vec<(&'e String, &'e Entry)> {
    let reverse = format!("{}arpa/", standing.config.prefix);
    let mut strays: Vec<(&String, &Entry)> = entries
        .iter()
        .filter(|(key, entry)| {
            let place = is_at_home(records, key)
                || key.starts_with(&reverse)
                || standing.written.contains(*key);
            place && !wanted.contains_key(*key) && is_ours(entry, &standing.config.owner)
        })
        .collect();
    // Reverse records first: a name without its reverse is better than the other way round.
    strays.sort_by_key(|(key, _)| !key.starts_with(&reverse));
    strays
}

/// Keys of the reverse records that belong to address records of ours which we no longer want: left behind by a former life of this agent.
pub(super) fn forgotten_reverse(
    records: &Records,
    entries: &Entries,
    config: &Config,
) -> Vec<String> {
    let ours = entries
        .iter()
        .filter(|(key, _)| is_at_home(records, key) && !records.wanted.contains_key(*key));
    ours.filter_map(|(_, entry)| {
        let ip = Mark::of(&entry.value).host?.parse().ok()?;
        is_ours(entry, &config.owner).then(|| reverse_key(&config.prefix, ip))
    })
    .filter(|key| !entries.contains_key(key) && !records.wanted.contains_key(key))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::register::addresses::Address;
    use crate::commands::register::config::Surroundings;
    use crate::commands::register::records::records;
    use crate::commands::register::settings::Register;

    /// The settings of these variables, of the owner `us`.
    fn config(variables: &[(&str, &str)]) -> Config {
        let mut all = BTreeMap::new();
        for (name, value) in variables
            .iter()
            .chain(&[("INSTANCE_ID", "us"), ("NAME", "node1")])
        {
            all.insert(format!("SKEIN_REGISTER_{name}"), (*value).to_owned());
        }
        let around = Surroundings {
            variables: all,
            machine_id: Vec::new(),
            default_file: "/nowhere".into(),
        };
        Config::read(&Register::default(), &around).expect("good settings")
    }

    fn entry(host: &str, owner: &str) -> Entry {
        Entry {
            value: format!(r#"{{"host":"{host}","x-owner":"{owner}"}}"#).into_bytes(),
            created: 5,
            version: 7,
            settled: true,
        }
    }

    /// The plan for a machine with 192.0.2.7, shortened: `+` new, `=` replaced, `-` deleted, `!` held by another.
    fn check(
        config: &Config,
        there: &[(&str, Entry)],
        claiming: bool,
        written: &[&str],
        expected: Result<&[&str], &str>,
    ) {
        let address = Address {
            ip: "192.0.2.7".parse().expect("an address"),
            interface: "eth0".into(),
        };
        let records = records(config, "node1", &[address]).expect("a good name");
        let entries = there
            .iter()
            .map(|(key, entry)| ((*key).to_owned(), entry.clone()))
            .collect();
        let written = written.iter().map(|key| (*key).to_owned()).collect();
        let standing = Standing {
            config,
            claiming,
            written: &written,
            nests: true,
        };
        let shown = plan(&records, &entries, &standing).map(|plan| {
            let changes = plan.changes.iter().map(|change| match change {
                Change::Put {
                    key, version: None, ..
                } => format!("+{key}"),
                Change::Put { key, .. } => format!("={key}"),
                Change::Delete { key, .. } => format!("-{key}"),
            });
            let held = plan.held.iter().map(|held| format!("!{}", held.key));
            changes.chain(held).collect::<Vec<_>>()
        });
        match (&shown, expected) {
            (Ok(shown), Ok(expected)) => assert_eq!(shown, expected),
            (Err(Refusal(what)), Err(part)) => assert!(what.contains(part), "{what}"),
            _ => panic!("{shown:?} is not {expected:?}"),
        }
    }

    const OURS: &str = "/skydns/local/skydns/node1/4-192-0-2-7";
    const THEIRS: &str = "/skydns/local/skydns/node1/4-192-0-2-9";
    const REVERSE: &str = "/skydns/arpa/in-addr/192/0/2/7";

    #[test]
    fn what_is_missing_is_written_and_what_is_right_is_left() {
        let config = config(&[]);
        check(
            &config,
            &[],
            true,
            &[],
            Ok(&[
                "+/skydns/arpa/in-addr/192/0/2/7",
                "+/skydns/local/skydns/node1/4-192-0-2-7",
            ]),
        );
        let right = |value: &str| Entry {
            value: value.as_bytes().to_vec(),
            ..entry("", "")
        };
        let there = [
            (
                OURS,
                right(
                    r#"{"host":"192.0.2.7","targetstrip":1,"ttl":30,"x-if":"eth0","x-owner":"us"}"#,
                ),
            ),
            (
                REVERSE,
                right(r#"{"host":"node1.skydns.local.","ttl":30,"x-owner":"us"}"#),
            ),
        ];
        check(&config, &there, false, &[OURS, REVERSE], Ok(&[]));
        // The same on a lease that is no longer ours.
        let unsettled = [
            (
                OURS,
                Entry {
                    settled: false,
                    ..there[0].1.clone()
                },
            ),
            there[1].clone(),
        ];
        check(
            &config,
            &unsettled,
            false,
            &[OURS, REVERSE],
            Ok(&["=/skydns/local/skydns/node1/4-192-0-2-7"]),
        );
    }

    #[test]
    fn what_we_left_behind_goes() {
        let below = "/skydns/local/skydns/node1/sub/4-192-0-2-8";
        let there = [
            (
                "/skydns/local/skydns/node1/4-192-0-2-8",
                entry("192.0.2.8", "us"),
            ),
            // Another name of this machine, which has an agent of its own.
            (below, entry("192.0.2.8", "us")),
            (
                "/skydns/arpa/in-addr/192/0/2/8",
                entry("node1.skydns.local.", "us"),
            ),
            (THEIRS, entry("192.0.2.9", "them")),
        ];
        let expected = [
            "+/skydns/arpa/in-addr/192/0/2/7",
            "+/skydns/local/skydns/node1/4-192-0-2-7",
            "-/skydns/arpa/in-addr/192/0/2/8",
            "-/skydns/local/skydns/node1/4-192-0-2-8",
        ];
        check(&config(&[]), &there, true, &[], Ok(&expected));
    }

    #[test]
    fn a_name_that_another_has() {
        let there = [(THEIRS, entry("192.0.2.9", "them"))];
        let added = [
            "+/skydns/arpa/in-addr/192/0/2/7",
            "+/skydns/local/skydns/node1/4-192-0-2-7",
        ];
        let taken = [
            "-/skydns/local/skydns/node1/4-192-0-2-9",
            added[0],
            added[1],
        ];
        check(
            &config(&[("ON_CONFLICT", "join")]),
            &there,
            true,
            &[],
            Ok(&added),
        );
        check(
            &config(&[("ON_CONFLICT", "takeover")]),
            &there,
            true,
            &[],
            Ok(&taken),
        );
        // Whoever has the name already does not take it again.
        check(
            &config(&[("ON_CONFLICT", "takeover")]),
            &there,
            false,
            &[],
            Ok(&added),
        );
        check(
            &config(&[("ON_CONFLICT", "fail")]),
            &there,
            true,
            &[],
            Err("belongs to another (them)"),
        );
        check(
            &config(&[("ON_CONFLICT", "fail")]),
            &there,
            false,
            &[],
            Ok(&added),
        );
    }

    #[test]
    fn a_name_that_was_taken_is_left() {
        let taken = Entry {
            value: br#"{"host":"192.0.2.9","x-owner":"them","x-exclusive":true}"#.to_vec(),
            ..Entry::default()
        };
        let there = [
            (THEIRS, taken),
            (REVERSE, entry("node1.skydns.local.", "us")),
        ];
        check(
            &config(&[]),
            &there,
            false,
            &[REVERSE],
            Ok(&["-/skydns/arpa/in-addr/192/0/2/7"]),
        );
    }

    #[test]
    fn a_reverse_record_that_another_has() {
        let there = [(REVERSE, entry("other.skydns.local.", "them"))];
        let forward = "+/skydns/local/skydns/node1/4-192-0-2-7";
        let (held, replaced) = (
            "!/skydns/arpa/in-addr/192/0/2/7",
            "=/skydns/arpa/in-addr/192/0/2/7",
        );
        check(&config(&[]), &there, true, &[], Ok(&[forward, held]));
        check(
            &config(&[("PTR_CONFLICT", "replace")]),
            &there,
            true,
            &[],
            Ok(&[replaced, forward]),
        );
        check(
            &config(&[("PTR_CONFLICT", "fail")]),
            &there,
            true,
            &[],
            Err("--ptr-conflict keep"),
        );
        // Who has lost it does not take it back.
        check(
            &config(&[("PTR_CONFLICT", "replace")]),
            &there,
            false,
            &[REVERSE],
            Ok(&[forward, held]),
        );
    }

    #[test]
    fn a_single_record() {
        let home = "/skydns/local/skydns/node1";
        let single = |conflict| {
            config(&[
                ("LAYOUT", "single"),
                ("ON_CONFLICT", conflict),
                ("REVERSE", "false"),
            ])
        };
        check(
            &single("join"),
            &[],
            true,
            &[],
            Ok(&["+/skydns/local/skydns/node1"]),
        );
        let by_hand = Entry {
            value: br#"{"host":"192.0.2.7"}"#.to_vec(),
            ..Entry::default()
        };
        check(
            &single("join"),
            &[(home, by_hand)],
            true,
            &[],
            Ok(&["=/skydns/local/skydns/node1"]),
        );
        let theirs = [(home, entry("192.0.2.9", "them"))];
        check(&single("join"), &theirs, true, &[], Err("cannot join"));
        check(
            &single("takeover"),
            &theirs,
            true,
            &[],
            Ok(&["=/skydns/local/skydns/node1"]),
        );
        check(
            &single("join"),
            &[(THEIRS, entry("192.0.2.9", "them"))],
            true,
            &[],
            Err("is below"),
        );
        let ours = [(OURS, entry("192.0.2.7", "us"))];
        check(
            &single("join"),
            &ours,
            true,
            &[],
            Ok(&[
                "-/skydns/local/skydns/node1/4-192-0-2-7",
                "+/skydns/local/skydns/node1",
            ]),
        );
    }
}
