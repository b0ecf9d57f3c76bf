//! What there is in v2 beside what there is in v3, and what is to be done about it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use skein_plugins::etcd::{KeyValue, V2Node};

/// The shortest lease that etcd grants, in seconds.
const LEASE_MIN: u64 = 2;

/// A key to be moved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Moved {
    pub(super) key: String,
    pub(super) value: String,
    /// Seconds that are left of it, or of a directory above it.
    pub(super) ttl: Option<u64>,
}

/// How a key stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// v3 does not have it.
    New,
    /// v3 has it with this value.
    Same,
    /// v3 has something else: its revision, and what.
    Different { revision: i64, what: String },
}

/// What is in v2: its keys, and what cannot be moved as it is.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) keys: BTreeMap<String, Moved>,
    pub(super) directories: usize,
    pub(super) empty: usize,
    /// Keys whose time is over: v2 shows them while it has no leader.
    pub(super) expired: usize,
}

impl Source {
    /// From nodes as v2 lists them, directories among them.
    pub(super) fn of(nodes: &[V2Node]) -> Source {
        let directories: BTreeMap<&str, Option<i64>> = nodes
            .iter()
            .filter(|node| node.dir)
            .map(|node| (node.key.as_str(), node.ttl))
            .collect();
        let mut parents: BTreeSet<&str> = BTreeSet::new();
        let mut source = Source {
            directories: directories.len(),
            ..Source::default()
        };
        for node in nodes {
            let above = above(&node.key);
            parents.extend(above.first());
            if node.dir {
                continue;
            }
            let times = above.iter().filter_map(|parent| *directories.get(parent)?);
            let ttl = times.chain(node.ttl).min();
            if ttl.is_some_and(|ttl| ttl <= 0) {
                source.expired += 1;
                continue;
            }
            let moved = Moved {
                key: node.key.clone(),
                value: node.value.clone(),
                ttl: ttl.map(|ttl| ttl.unsigned_abs()),
            };
            source.keys.insert(node.key.clone(), moved);
        }
        source.empty = directories
            .keys()
            .filter(|key| !parents.contains(*key))
            .count();
        source
    }
}

/// The directories above a key, the nearest first.
fn above(key: &str) -> Vec<&str> {
    let ends = key
        .match_indices('/')
        .map(|(at, _)| at)
        .filter(|at| *at > 0);
    let mut above: Vec<&str> = ends.filter_map(|at| key.get(..at)).collect();
    above.reverse();
    above
}

/// How each key of v2 stands beside those of v3.
pub(super) fn compare(source: &Source, v3: &[KeyValue]) -> BTreeMap<String, Standing> {
    let there: HashMap<&[u8], &KeyValue> = v3.iter().map(|kv| (kv.key.as_slice(), kv)).collect();
    let standings = source.keys.values().map(|moved| {
        let standing = match there.get(moved.key.as_bytes()) {
            None => Standing::New,
            Some(kv) if kv.value != moved.value.as_bytes() => Standing::Different {
                revision: kv.mod_revision,
                what: shown(&kv.value),
            },
            Some(kv) if kv.lease == 0 && moved.ttl.is_some() => Standing::Different {
                revision: kv.mod_revision,
                what: "the same value, without an end".into(),
            },
            Some(_) => Standing::Same,
        };
        (moved.key.clone(), standing)
    });
    standings.collect()
}

/// A value as text; control characters must not reach a terminal.
pub(super) fn shown(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.chars()
        .take(200)
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// The lease for so many seconds: those that end at about the same time share one. At most a thirty-second part longer than asked for.
pub(super) fn lease_seconds(ttl: u64) -> u64 {
    // A power of two, so that near ends have the same steps.
    let step = 1 << (ttl / 32).max(1).ilog2();
    (ttl.div_ceil(step) * step).max(LEASE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(key: &str, value: Option<&str>, ttl: Option<i64>) -> V2Node {
        V2Node {
            key: key.into(),
            value: value.unwrap_or_default().into(),
            dir: value.is_none(),
            ttl,
            ..V2Node::default()
        }
    }

    #[test]
    fn a_directorys_time_is_its_keys_too() {
        let source = Source::of(&[
            node("/skydns", None, None),
            node("/skydns/a", None, Some(30)),
            node("/skydns/a/b", Some("1"), None),
            node("/skydns/a/c", Some("2"), Some(10)),
            node("/skydns/d", Some("3"), None),
            node("/skydns/e", None, None),
            node("/skydns/f", Some("4"), Some(-3)),
        ]);
        let ttl = |key: &str| source.keys.get(key).map(|moved| moved.ttl);
        assert_eq!(ttl("/skydns/a/b"), Some(Some(30)));
        assert_eq!(ttl("/skydns/a/c"), Some(Some(10)));
        assert_eq!(ttl("/skydns/d"), Some(None));
        assert_eq!(ttl("/skydns/f"), None);
        assert_eq!(
            (source.directories, source.empty, source.expired),
            (3, 1, 1)
        );
    }

    #[test]
    fn a_key_is_new_the_same_or_different() {
        let source = Source::of(&[
            node("/s/new", Some("1"), None),
            node("/s/same", Some("2"), None),
            node("/s/other", Some("3"), None),
            node("/s/ends", Some("4"), Some(60)),
        ]);
        let kv = |key: &str, value: &str| KeyValue {
            key: key.into(),
            value: value.into(),
            mod_revision: 7,
            ..KeyValue::default()
        };
        let v3 = [
            kv("/s/same", "2"),
            kv("/s/other", "x"),
            kv("/s/ends", "4"),
            kv("/s/more", "5"),
        ];
        let standing = compare(&source, &v3);
        assert_eq!(standing["/s/new"], Standing::New);
        assert_eq!(standing["/s/same"], Standing::Same);
        let different = |what: &str| Standing::Different {
            revision: 7,
            what: what.into(),
        };
        assert_eq!(standing["/s/other"], different("x"));
        assert_eq!(
            standing["/s/ends"],
            different("the same value, without an end")
        );
        assert_eq!(standing.len(), 4);
    }

    #[test]
    fn ends_that_are_near_share_a_lease() {
        assert_eq!(lease_seconds(1), 2);
        assert_eq!(lease_seconds(33), 33);
        assert_eq!(lease_seconds(3590), lease_seconds(3585));
        for ttl in 1..10_000 {
            let lease = lease_seconds(ttl);
            assert!(
                lease >= ttl && lease <= ttl + ttl / 32 + 2,
                "{ttl}: {lease}"
            );
        }
    }
}
