//! [`Style`]: how an `etcd` line answers, apart from where the records are.

use super::record::{NO_PRIORITY, NO_TTL, Record};
use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::options::{Checked, Property};
use crate::kit::wire::Name;
use crate::kit::wire::name::NameBuf;

/// What answers depend on beside the records and the zones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Style {
    /// SkyDNS's answers instead of CoreDNS's.
    pub(super) sky: Option<Sky>,
    pub(super) subtree: Subtree,
    /// Records of a zone's name are its own key's, and those in `dns/apex`.
    pub(super) apex_is_own: bool,
    /// `*` and `any` in a query stand for any label.
    pub(super) query_wildcards: bool,
    /// `*` in a key answers names that are not there.
    pub(super) record_wildcards: bool,
    /// Reverse names are made from addresses.
    pub(super) auto_ptr: bool,
    /// TTL of records with neither one of their own nor a lease, in seconds.
    pub(super) ttl: u32,
    /// TTL and minimum of the SOA record of negative answers, in seconds.
    pub(super) min_ttl: u32,
    /// Priority of records that say none.
    pub(super) priority: u16,
    /// The SOA record's RNAME; none: `hostmaster` in the zone.
    pub(super) hostmaster: Option<Name>,
    pub(super) serial_is_time: bool,
}

/// What SkyDNS alone has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sky {
    /// What `local.dns.ZONE` stands for, lower-case.
    pub(super) local: Option<Name>,
    /// Labels that a name outside the zones must have to be passed on.
    pub(super) ndots: usize,
    /// Names outside the zones are passed on for our own look-ups only.
    pub(super) no_rec: bool,
    /// The longest TTL of what comes from outside the zones into an answer, in seconds.
    pub(super) completion_ttl: u32,
}

/// What a name with records below it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Subtree {
    /// Everything below it. Its own record: as CoreDNS only if nothing is below, as SkyDNS too.
    On,
    /// What is one level below it. Its own record as with [`Subtree::On`].
    Children,
    /// Its own record.
    Off,
}

impl Style {
    /// The TTL of a record, in seconds.
    pub(super) fn ttl(&self, record: &Record) -> u32 {
        match (record.ttl, &self.sky) {
            (0, _) => self.ttl,
            (lease, Some(_)) if record.is(NO_TTL) => lease.min(self.ttl),
            (ttl, _) => ttl,
        }
    }

    /// The priority of a record.
    pub(super) fn priority(&self, record: &Record) -> u16 {
        match record.is(NO_PRIORITY) {
            true => self.priority,
            false => record.priority,
        }
    }
}

/// Reads the options of a directive that are about answers.
pub(super) fn read(directive: &Checked) -> Result<Style, SetupErrors> {
    let word = |option: &str, argument: &str| {
        let value = directive.option(option).and_then(|line| line.arg(argument));
        value.map(|value| value.text().to_owned())
    };
    let like_skydns = word("answers", "LIKE").as_deref() == Some("skydns");
    let seconds = |option: &str, coredns: u32, skydns: u32| {
        let value = directive.option(option).and_then(|line| line.arg("TTL"));
        let default = if like_skydns { skydns } else { coredns };
        value.map_or(default, |ttl| {
            u32::try_from(ttl.duration().as_secs()).unwrap_or(u32::MAX)
        })
    };
    let mut errors = SetupErrors::default();
    let mut name = |option: &str, argument: &str, read: fn(&str) -> Result<Name, String>| {
        let value = directive.option(option)?.arg(argument)?;
        read(value.text())
            .map_err(|what| errors.0.push(SetupError::at(value.span(), what)))
            .ok()
    };
    let hostmaster = name("hostmaster", "MAIL", mailbox);
    let local = name("local", "NAME", |text| {
        let read = Name::parse(text).map(|name| name.to_lowercase());
        read.map_err(|error| format!("`{text}`: {error}; write a name such as host1.example.org"))
    });
    let integer = |option: &str, default: i64| {
        let value = directive.option(option).and_then(|line| line.arg("N"));
        value.map_or(default, |value| value.integer())
    };
    let sky = Sky {
        local,
        ndots: integer("ndots", 2) as usize,
        no_rec: directive.has("no-rec"),
        completion_ttl: seconds("completion-ttl", 60, 60),
    };
    if !like_skydns {
        let others = SKYDNS_ONLY.iter().filter_map(|name| directive.option(name));
        errors.0.extend(others.map(needs_skydns));
    }
    let wildcards = word("wildcards", "WHERE");
    let style = Style {
        sky: like_skydns.then_some(sky),
        subtree: match word("subtree", "MODE").as_deref() {
            Some("children") => Subtree::Children,
            Some("off") => Subtree::Off,
            _ => Subtree::On,
        },
        apex_is_own: word("apex", "FROM").as_deref() == Some("own"),
        query_wildcards: wildcards.as_deref() != Some("records"),
        record_wildcards: wildcards.is_some_and(|wildcards| wildcards != "queries"),
        auto_ptr: directive.has("auto-ptr"),
        ttl: seconds("ttl", 300, 3600),
        min_ttl: seconds("min-ttl", 30, 60),
        priority: integer("priority", 10) as u16,
        hostmaster,
        serial_is_time: word("serial", "OF").as_deref() == Some("time"),
    };
    errors.or(style)
}

/// Options that say nothing about CoreDNS's answers.
const SKYDNS_ONLY: [&str; 4] = ["local", "ndots", "no-rec", "completion-ttl"];

fn needs_skydns(line: &Property) -> SetupError {
    SetupError::at(
        line.span(),
        format!(
            "`{}` belongs to `answers skydns`; write that too, or remove it",
            line.word.text
        ),
    )
}

/// A mail address or its name form, as the SOA record has it.
fn mailbox(text: &str) -> Result<Name, String> {
    let wrong = |why: String| format!("`{text}`: {why}; write hostmaster@example.org");
    let Some((user, domain)) = text.split_once('@') else {
        return Name::parse(text).map_err(|error| wrong(error.to_string()));
    };
    // RFC 1035 §8: what stands before the @ is one label, dots and all.
    let domain = Name::parse(domain).map_err(|error| wrong(error.to_string()))?;
    let mut name = NameBuf::new();
    let put = name.push_label(user.as_bytes());
    put.and_then(|()| name.extend(domain.as_wire()))
        .map_err(|error| wrong(error.to_string()))?;
    Ok(name.to_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_address_is_one_label_and_a_domain() {
        let text = |mail: &str| mailbox(mail).map(|name| name.to_string());
        assert_eq!(text("hm@example.org").as_deref(), Ok("hm.example.org."));
        assert_eq!(text("a.b@example.org").as_deref(), Ok("a\\.b.example.org."));
        assert_eq!(text("a.b.example.org.").as_deref(), Ok("a.b.example.org."));
        assert!(mailbox("@example.org").is_err());
        assert!(mailbox("a@b..c").is_err());
        assert!(mailbox("").is_err());
    }

    #[test]
    fn ttls_and_priorities_by_style() {
        let style = |sky| Style {
            sky,
            subtree: Subtree::On,
            apex_is_own: false,
            query_wildcards: true,
            record_wildcards: false,
            auto_ptr: false,
            ttl: 3600,
            min_ttl: 60,
            priority: 20,
            hostmaster: None,
            serial_is_time: false,
        };
        let sky = style(Some(Sky {
            local: None,
            ndots: 2,
            no_rec: false,
            completion_ttl: 60,
        }));
        let plain = style(None);
        let record = |value: &str, lease| Record::read(value.as_bytes(), 1, lease).expect("right");
        for (value, lease, coredns, skydns) in [
            ("{}", None, 3600, 3600),
            ("{}", Some(7200), 7200, 3600),
            ("{}", Some(30), 30, 30),
            (r#"{"ttl":7200}"#, None, 7200, 7200),
            (r#"{"ttl":60}"#, Some(30), 30, 30),
            (r#"{"ttl":7200}"#, Some(9000), 7200, 7200),
        ] {
            let record = record(value, lease);
            assert_eq!(
                (plain.ttl(&record), sky.ttl(&record)),
                (coredns, skydns),
                "{value} {lease:?}"
            );
        }
        let priority = |value: &str| plain.priority(&record(value, None));
        assert_eq!(priority("{}"), 20);
        assert_eq!(priority(r#"{"priority":65536}"#), 0);
        assert_eq!(priority(r#"{"priority":7}"#), 7);
    }
}
