//! The checks of `skeindns verify` without a name: a look at everything that a first user asks for.

use std::time::Duration;

use skein_plugins::kit::wire::{Name, Rcode, Rtype, Section, name};

use super::ask::{Asker, How, Question, Reply, Silence};
use super::check::{Check, Task, Verdict};
use super::model::{Model, Zone};

/// What a look at a zone asks that etcd can say: SOA, NS, this machine's name and addresses.
pub(crate) fn tasks(zones: &[Zone], model: &Model, host: &str) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (at, zone) in zones.iter().enumerate() {
        let mut add = |name: &[u8], rtype| {
            tasks.push(Task {
                question: Question::new(name, rtype),
                zone: at,
            });
        };
        if !zone.is_apart {
            add(&zone.name, Rtype::SOA);
        }
        if is_reverse(&zone.name) {
            continue;
        }
        add(&zone.name, Rtype::NS);
        let Some(own) = below(zone, host.split('.').next().unwrap_or(host)) else {
            continue;
        };
        add(&own, Rtype::A);
        add(&own, Rtype::AAAA);
    }
    tasks.extend(reverse_of(zones, model, &tasks));
    tasks
}

/// The PTR questions for the addresses that the model knows for what is asked.
fn reverse_of(zones: &[Zone], model: &Model, tasks: &[Task]) -> Vec<Task> {
    let mut found = Vec::new();
    for task in tasks {
        let Some(zone) = zones.get(task.zone) else {
            continue;
        };
        if !matches!(task.question.rtype, Rtype::A | Rtype::AAAA) {
            continue;
        }
        for record in model.answer(zones, zone, &task.question).records {
            let Some(reverse) = reverse_name(&record.rr.data) else {
                continue;
            };
            let zone = zones
                .iter()
                .position(|zone| name::is_within(&reverse, &zone.name));
            found.extend(zone.map(|zone| Task {
                question: Question::new(&reverse, Rtype::PTR),
                zone,
            }));
        }
    }
    found
}

/// `1.2.0.192.in-addr.arpa.` for an address's octets, wire form.
fn reverse_name(octets: &[u8]) -> Option<Vec<u8>> {
    let text: String = match octets.len() {
        4 => {
            let octets = octets.iter().rev();
            octets.map(|octet| format!("{octet}.")).collect::<String>() + "in-addr.arpa."
        }
        16 => {
            let octets = octets.iter().rev();
            let nibbles = octets.map(|octet| format!("{:x}.{:x}.", octet & 15, octet >> 4));
            nibbles.collect::<String>() + "ip6.arpa."
        }
        _ => return None,
    };
    Some(Name::parse(&text).ok()?.as_wire().to_vec())
}

pub(crate) fn is_reverse(zone: &[u8]) -> bool {
    name::is_within(zone, b"\x04arpa\x00")
}

fn below(zone: &Zone, label: &str) -> Option<Vec<u8>> {
    let zone = Name::from_wire(&zone.name).ok()?;
    let name = zone.child(label.to_ascii_lowercase().as_bytes()).ok()?;
    Some(name.as_wire().to_vec())
}

/// A name of a zone that does not exist.
pub(crate) fn missing_name(zone: &Zone) -> Option<Vec<u8>> {
    below(
        zone,
        &format!("skeindns-verify-{:08x}", rand::random::<u32>()),
    )
}

/// What etcd cannot say: a name of the outside, TCP, EDNS and a query without it.
pub(crate) async fn others(how: &How, zone: &Zone, forwarded: &str) -> Vec<Check> {
    let mut asker = Asker::default();
    let soa = Question::new(&zone.name, Rtype::SOA);
    let mut checks = Vec::new();
    let tcp = How { tcp: true, ..*how };
    let reply = asker.ask(&tcp, &soa).await;
    let verdict = reply.as_ref().ok().map(|reply| of_zone(reply, zone));
    checks.push(check(&soa, "over TCP", "SOA", &reply, verdict));
    let reply = asker.ask(&How { tcp: false, ..*how }, &soa).await;
    let verdict = reply.as_ref().ok().map(|reply| match reply.edns {
        true => of_zone(reply, zone),
        false => Verdict::Failed("an OPT came without one in the answer (RFC 6891 §6.1.1)".into()),
    });
    checks.push(check(&soa, "with EDNS", "SOA", &reply, verdict));
    let plain = How {
        tcp: false,
        udp_octets: None,
        ..*how
    };
    let reply = asker.ask(&plain, &soa).await;
    let verdict = reply.as_ref().ok().map(|reply| match reply.edns {
        false => of_zone(reply, zone),
        true => Verdict::Failed("an OPT came although none was sent (RFC 6891 §7)".into()),
    });
    checks.push(check(&soa, "without EDNS", "SOA", &reply, verdict));
    if let Ok(name) = Name::parse(forwarded) {
        let asked = Question::new(name.as_wire(), Rtype::A);
        let reply = asker.ask(how, &asked).await;
        let verdict = reply.as_ref().ok().map(|reply| match reply.rcode {
            Rcode::NOERROR => Verdict::Ok,
            Rcode::REFUSED => Verdict::Skipped("the server forwards no names".into()),
            rcode => Verdict::Failed(format!(
                "{rcode}; run `skeindns doctor` to see which upstream fails, or name another with --forwarded"
            )),
        });
        checks.push(check(&asked, "forwarded", "NOERROR", &reply, verdict));
    }
    checks
}

fn of_zone(reply: &Reply, zone: &Zone) -> Verdict {
    let mut answer = reply.section(Section::Answer);
    match answer.any(|(_, rr)| rr.rtype == Rtype::SOA && rr.owner == zone.name) {
        true => Verdict::Ok,
        false => Verdict::Failed("not the SOA of the zone".into()),
    }
}

fn check(
    question: &Question,
    how: &str,
    expected: &str,
    reply: &Result<Reply, Silence>,
    verdict: Option<Verdict>,
) -> Check {
    let got = match reply {
        Ok(reply) => super::compare::show_reply(reply),
        Err(silence) => silence.to_string(),
    };
    Check {
        name: name::display(&question.name).to_string(),
        rtype: format!("{} {how}", question.rtype),
        expected: expected.to_owned(),
        took: reply.as_ref().map_or(Duration::ZERO, |reply| reply.took),
        verdict: verdict.unwrap_or_else(|| Verdict::Failed(got.clone())),
        got,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_reverse_names() {
        let shown =
            |octets: &[u8]| reverse_name(octets).map(|wire| name::display(&wire).to_string());
        assert_eq!(
            shown(&[192, 0, 2, 1]).as_deref(),
            Some("1.2.0.192.in-addr.arpa.")
        );
        let mut v6 = [0; 16];
        v6[0] = 0x20;
        v6[1] = 0x01;
        v6[15] = 0x1a;
        let text = shown(&v6).unwrap_or_default();
        assert!(
            text.starts_with("a.1.0.0.") && text.ends_with(".1.0.0.2.ip6.arpa."),
            "{text}"
        );
        assert_eq!(reverse_name(&[1]), None);
    }
}
