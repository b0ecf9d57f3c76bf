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
    for (key, entry) in strays(entries, wanted, &config.owner) {
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
    let at_home = |key: &str| {
        records
            .homes
            .iter()
            .any(|home| match key.strip_prefix(home.as_str()) {
                Some("") => true,
                Some(rest) => rest
                    .strip_prefix('/')
                    .is_some_and(|rest| !rest.contains('/')),
                None => false,
            })
    };
    let rivals = entries.iter().filter(|(key, _)| at_home(key));
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

/// What keeps us from writing where a value excludes keys below it, and what a single record would hide.
fn in_the_way(
    records: &Records,
    entries: &Entries,
    standing: &Standing<'_>,
    cleared: &mut BTreeSet<String>,
) -> Result<(), Refusal> {
    let config = standing.config;
    for home in &records.homes {
        match config.layout {
            Layout::Single => {
                let below = entries.keys().find(|key| {
                    let below = key
                        .strip_prefix(home.as_str())
                        .is_some_and(|rest| rest.starts_with('/'));
                    let ours = entries.get(*key).is_some_and(|entry| {
                        Mark::of(&entry.value).owner.as_deref() == Some(&config.owner)
                    });
                    below && !ours && !cleared.contains(*key)
                });
                if let Some(key) = below {
                    return Err(Refusal(format!(
                        "{key} is below {home}, which --layout single wants for itself; write --layout instances, or delete it"
                    )));
                }
                for (key, entry) in entries {
                    let ours = Mark::of(&entry.value).owner.as_deref() == Some(&config.owner);
                    if ours
                        && key
                            .strip_prefix(home.as_str())
                            .is_some_and(|rest| rest.starts_with('/'))
                    {
                        cleared.insert(key.clone());
                    }
                }
            }
            Layout::Instances => {
                let Some(entry) = entries.get(home) else {
                    continue;
                };
                let mark = Mark::of(&entry.value);
                if mark.owner.as_deref() == Some(&config.owner) || cleared.contains(home) {
                    cleared.insert(home.clone());
                } else if !standing.nests {
                    return Err(refusal(
                        home,
                        &mark,
                        "delete it, or write --on-conflict takeover: v2 has no keys below a value",
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Records with our mark that we no longer want: below our names, among those we wrote, and the reverse records of our former addresses.
fn strays<'e>(
    entries: &'e Entries,
    wanted: &BTreeMap<String, Wanted>,
    owner: &str,
) -> Vec<(&'e String, &'e Entry)> {
    let mut strays: Vec<(&String, &Entry)> = entries
        .iter()
        .filter(|(key, entry)| {
            !wanted.contains_key(*key) && Mark::of(&entry.value).owner.as_deref() == Some(owner)
        })
        .collect();
    // Reverse records first: a name without its reverse is better than the other way round.
    strays.sort_by_key(|(key, _)| !key.contains("/arpa/"));
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
        .filter(|(key, _)| !records.wanted.contains_key(*key));
    ours.filter_map(|(_, entry)| {
        let mark = Mark::of(&entry.value);
        let ip = mark.host?.parse().ok()?;
        (mark.owner.as_deref() == Some(&config.owner)).then(|| reverse_key(&config.prefix, ip))
    })
    .filter(|key| !entries.contains_key(key) && !records.wanted.contains_key(key))
    .collect()
}
