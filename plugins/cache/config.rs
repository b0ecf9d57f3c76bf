//! What the Dnsfile says about the cache.

use std::time::Duration;

use super::age::{Bounds, Rules};
use super::store::{Kind as Store, Limits};
use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::options::{Arg, Checked, Kind, Opt, Property, Value, parse_duration};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::setup::ServerSetup;
use crate::kit::zones::ZoneSet;

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "cache",
    aliases: &[],
    summary: "answers from memory while the TTL lasts",
    arguments: &[Arg::optional("TTL", TTL), Arg::any("ZONES", Kind::Zone)],
    options: &[
        Opt::new(
            "success",
            STORE,
            "no CAPACITY, 3600, 5",
            "answers: entries at most (the memory alone bounds them where no number is written), longest and shortest time in seconds",
        ),
        Opt::new(
            "denial",
            STORE,
            "no CAPACITY, 1800, 5",
            "the same for NXDOMAIN and NODATA",
        ),
        Opt::new(
            "servfail",
            &[Arg::one(
                "DURATION",
                Kind::Duration {
                    min: Duration::ZERO,
                    max: SERVFAIL_MAX,
                },
            )],
            "5s",
            "how long an upstream's SERVFAIL is kept; 0 keeps none",
        ),
        Opt::new(
            "memory",
            &[Arg::one(
                "SIZE",
                Kind::Size {
                    min: 1 << 20,
                    max: 1 << 40,
                },
            )],
            "256MiB",
            "octets for everything that is kept, used only as they fill",
        ),
        Opt::new(
            "prefetch",
            &[
                Arg::one(
                    "AMOUNT",
                    Kind::Integer {
                        min: 0,
                        max: u32::MAX as i64,
                    },
                ),
                Arg::optional("DURATION", ANY_DURATION),
                Arg::optional("PERCENT", Kind::Percent { min: 10, max: 90 }),
            ],
            "off; 1m, 10%",
            "asks again for what was hit AMOUNT times without a pause of DURATION, when PERCENT of its time is left",
        ),
        Opt::new(
            "serve_stale",
            &[
                Arg::optional("DURATION", ANY_DURATION),
                Arg::optional("immediate|verify", Kind::Choice(&["immediate", "verify"])),
                Arg::optional("TIMEOUT", ANY_DURATION),
                Arg::optional("RESPONSE_TTL", ANY_DURATION),
                Arg::optional("RECHECK", ANY_DURATION),
            ],
            "off; 1h immediate",
            "serves answers past their time for DURATION: at once (`immediate [RESPONSE_TTL [RECHECK]]`) or when asking fails (`verify [TIMEOUT [RESPONSE_TTL [RECHECK]]]`)",
        ),
        Opt::new(
            "serve_stale_policy",
            &[Arg::one("POLICY", Kind::Choice(&["prefer_positive"]))],
            "off",
            "prefers an answer, even a stale one, to a denial",
        )
        .once(),
        Opt::new(
            "disable",
            &[
                Arg::one("TYPE", Kind::Choice(&["success", "denial"])),
                Arg::any("ZONES", Kind::Zone),
            ],
            "none",
            "keeps no answers, or no denials, for these zones (without any: for all)",
        )
        .adds(),
        Opt::new(
            "keepttl",
            &[],
            "off",
            "serves every TTL as it was when stored instead of counting down",
        ),
    ],
    free_block: false,
    repeat: Repeat::Once,
    setup: super::setup,
};

/// Any number is a TTL, also one that is none (see [`ttl`]): it must not be taken for the word behind it.
const TTL: Kind = Kind::Integer {
    min: i64::MIN,
    max: i64::MAX,
};
/// Longer ones are taken for zero by every receiver (RFC 2181 §8).
const TTL_MAX: i64 = i32::MAX as i64;
/// Go's longest duration is 292 years; so is ours, nearly.
const ANY_DURATION: Kind = Kind::Duration {
    min: Duration::ZERO,
    max: Duration::from_secs(i64::MAX as u64 / 1_000_000_000),
};
const STORE: &[Arg] = &[
    Arg::one(
        "CAPACITY",
        Kind::Integer {
            min: 0,
            max: u32::MAX as i64,
        },
    ),
    Arg::optional("TTL", TTL),
    Arg::optional(
        "MINTTL",
        Kind::Integer {
            min: 0,
            max: TTL_MAX,
        },
    ),
];
/// RFC 2308 §7.1: a failure may be kept for five minutes at most.
const SERVFAIL_MAX: Duration = Duration::from_secs(300);
const MEMORY: u64 = 256 << 20;

/// When popular answers are asked for again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefetch {
    /// Hits it takes.
    pub(super) amount: u32,
    /// A pause of more than this starts the count anew.
    pub(super) pause: Duration,
    /// Of its time that is left.
    pub(super) percent: u32,
}

/// When stale answers are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StaleMode {
    /// At once; the answer is asked for in the background.
    Immediate,
    /// When asking for a better one failed.
    Verify,
}

/// How stale answers are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stale {
    /// How long past its time an answer is served.
    pub(super) duration: Duration,
    pub(super) mode: StaleMode,
    /// How long a client waits for a better answer; as long as it takes if none.
    pub(super) timeout: Option<Duration>,
    /// TTL of all records, in seconds.
    pub(super) response_ttl: u32,
    /// Seconds after a failed attempt without another one.
    pub(super) recheck: u32,
    /// An answer goes before a denial.
    pub(super) prefer_positive: bool,
}

/// All of it, checked.
pub(super) struct Config {
    /// The zones written; none means all that come here.
    pub(super) zones: Option<ZoneSet>,
    pub(super) limits: Limits,
    pub(super) rules: Rules,
    pub(super) prefetch: Option<Prefetch>,
    pub(super) stale: Option<Stale>,
    pub(super) keep_ttl: bool,
    success_off: ZoneSet,
    denial_off: ZoneSet,
}

impl Config {
    pub(super) fn read(
        line: &Checked,
        server: &mut ServerSetup<'_>,
    ) -> Result<Config, SetupErrors> {
        let zones: Vec<_> = line
            .args("ZONES")
            .flat_map(|value| value.zones().iter().cloned())
            .collect();
        let both = line.arg("TTL").map(ttl).transpose()?;
        let bounds = |name: &str, default: u32| {
            let written = line.option(name).and_then(|line| line.arg("TTL"));
            Ok::<_, SetupErrors>(Bounds {
                min: number(line.option(name), "MINTTL").unwrap_or(5),
                max: written.map(ttl).transpose()?.or(both).unwrap_or(default),
            })
        };
        let capacity =
            |name: &str| number(line.option(name), "CAPACITY").map(|capacity| capacity as usize);
        let servfail = line
            .option("servfail")
            .and_then(|line| line.arg("DURATION"));
        let memory = line.option("memory").and_then(|line| line.arg("SIZE"));
        let mut config = Config {
            zones: (!zones.is_empty()).then(|| ZoneSet::new(zones)),
            limits: Limits {
                memory: memory.map_or(MEMORY, |size| size.size()),
                success: capacity("success"),
                denial: capacity("denial"),
            },
            rules: Rules {
                success: bounds("success", 3600)?,
                denial: bounds("denial", 1800)?,
                servfail: servfail.map_or(5, |time| time.duration().as_secs() as u32),
            },
            prefetch: line.option("prefetch").and_then(prefetch),
            stale: line.option("serve_stale").map(stale).transpose()?.flatten(),
            keep_ttl: line.has("keepttl"),
            success_off: ZoneSet::default(),
            denial_off: ZoneSet::default(),
        };
        if let Some(policy) = line.option("serve_stale_policy") {
            if !line.has("serve_stale") {
                let what = "serve_stale_policy requires serve_stale: write that as well";
                return Err(SetupError::at(policy.span(), what).into());
            }
            if let Some(stale) = &mut config.stale {
                stale.prefer_positive = true;
            }
        }
        config.read_disable(line, server);
        // As in CoreDNS, what is no number is a zone, and nothing is kept of any other name.
        if let Some(zone) = line.args("ZONES").next()
            && parse_duration(zone.text()).is_ok()
        {
            let word = zone.text();
            let what = format!("`{word}` is taken for a zone; a TTL is a number of seconds");
            server.warn(zone.span(), what);
        }
        Ok(config)
    }

    fn read_disable(&mut self, line: &Checked, server: &mut ServerSetup<'_>) {
        let (mut success, mut denial) = (false, false);
        for property in line.options("disable") {
            let mut zones: Vec<_> = property
                .args("ZONES")
                .flat_map(|value| value.zones().iter().cloned())
                .collect();
            if zones.is_empty() {
                zones = server.zones().iter().cloned().collect();
            }
            let word = property.arg("TYPE").map_or("", |word| word.text());
            let (off, again) = match word {
                "success" => (&mut self.success_off, &mut success),
                _ => (&mut self.denial_off, &mut denial),
            };
            *off = ZoneSet::new(zones);
            if std::mem::replace(again, true) {
                server.warn(
                    property.span(),
                    format!("`disable {word}` stands twice and the last one counts, write all zones in one line"),
                );
            }
        }
    }

    /// Whether answers of this kind are not to be kept for the name (lower-cased wire form).
    pub(super) fn disabled(&self, kind: Store, qname: &[u8]) -> bool {
        let off = match kind {
            Store::Success => &self.success_off,
            Store::Denial => &self.denial_off,
        };
        !off.is_empty() && off.cover(qname).is_some()
    }

    /// Whether an answer goes before a denial.
    pub(super) fn prefers_positive(&self) -> bool {
        self.stale
            .as_ref()
            .is_some_and(|stale| stale.prefer_positive)
    }
}

fn ttl(value: &Value) -> Result<u32, SetupErrors> {
    match value.integer() {
        n @ 1..=TTL_MAX => Ok(n as u32),
        n => {
            let what = format!("TTL must lie between 1 and {TTL_MAX}, got {n}");
            Err(SetupError::at(value.span(), what).into())
        }
    }
}

// The table has checked the ranges.
fn number(property: Option<&Property>, name: &str) -> Option<u32> {
    property?.arg(name).map(|value| value.integer() as u32)
}

fn prefetch(line: &Property) -> Option<Prefetch> {
    let amount = number(Some(line), "AMOUNT")?;
    let pause = line.arg("DURATION");
    (amount > 0).then(|| Prefetch {
        amount,
        pause: pause.map_or(Duration::from_secs(60), |pause| pause.duration()),
        percent: number(Some(line), "PERCENT").unwrap_or(10),
    })
}

/// `[DURATION [immediate [RESPONSE_TTL [RECHECK]] | verify [TIMEOUT [RESPONSE_TTL [RECHECK]]]]]`; nothing for a DURATION of 0.
fn stale(line: &Property) -> Result<Option<Stale>, SetupErrors> {
    let times: Vec<_> = ["TIMEOUT", "RESPONSE_TTL", "RECHECK"]
        .iter()
        .filter_map(|name| line.arg(name))
        .collect();
    let error = |span, what: &str| Err(SetupErrors::from(SetupError::at(span, what)));
    let mode = line.arg("immediate|verify");
    if let Some(mode) = mode
        && line.arg("DURATION").is_none()
    {
        return error(
            mode.span(),
            "serve_stale needs a duration before its mode: `serve_stale 1h verify`",
        );
    }
    if let (None, Some(time)) = (mode, times.first()) {
        return error(
            time.span(),
            "serve_stale needs its mode before this time: `immediate` or `verify`",
        );
    }
    let (mode, timeout, rest) = match (mode.map(|mode| mode.text()), times.as_slice()) {
        (Some("verify"), [timeout, rest @ ..]) => (StaleMode::Verify, Some(timeout), rest),
        (Some("verify"), rest) => (StaleMode::Verify, None, rest),
        (_, rest) => (StaleMode::Immediate, None, rest),
    };
    if let [_, _, extra, ..] = rest {
        return error(
            extra.span(),
            "serve_stale immediate takes a response TTL and a recheck time, and nothing more",
        );
    }
    let response_ttl = match rest.first() {
        None => 0,
        Some(ttl) if ttl.duration().subsec_nanos() != 0 => {
            return error(
                ttl.span(),
                "serve_stale response TTL must be a whole number of seconds",
            );
        }
        Some(ttl) => match u32::try_from(ttl.duration().as_secs()) {
            Ok(seconds) => seconds,
            Err(_) => {
                return error(
                    ttl.span(),
                    "serve_stale response TTL exceeds the DNS TTL range: at most 4294967295s",
                );
            }
        },
    };
    let recheck = rest.get(1).map_or(Duration::ZERO, |time| time.duration());
    if let Some(time) = rest.get(1)
        && recheck > SERVFAIL_MAX
    {
        return error(
            time.span(),
            "serve_stale failure recheck cannot exceed 5 minutes",
        );
    }
    let duration = line
        .arg("DURATION")
        .map_or(Duration::from_secs(3600), |time| time.duration());
    let stale = Stale {
        duration,
        mode,
        // A timeout of 0 is none.
        timeout: timeout
            .map(|time| time.duration())
            .filter(|time| !time.is_zero()),
        response_ttl,
        recheck: recheck.as_secs_f64().ceil() as u32,
        prefer_positive: false,
    };
    Ok((!duration.is_zero()).then_some(stale))
}

#[cfg(test)]
impl Config {
    /// The defaults, for tests that need no Dnsfile.
    pub(super) fn for_tests() -> Config {
        Config {
            zones: None,
            limits: Limits {
                memory: MEMORY,
                success: None,
                denial: None,
            },
            rules: Rules {
                success: Bounds { min: 5, max: 3600 },
                denial: Bounds { min: 5, max: 1800 },
                servfail: 5,
            },
            prefetch: None,
            stale: None,
            keep_ttl: false,
            success_off: ZoneSet::default(),
            denial_off: ZoneSet::default(),
        }
    }
}
