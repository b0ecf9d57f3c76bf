//! [`ZoneData`]: a zone of an instance, the names reserved in it, and its SOA record.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::style::Style;
use super::tree::path_of;
use crate::kit::wire::name::{NAME_OCTETS_MAX, is_within};
use crate::kit::wire::{Class, Name, Rtype};
use crate::kit::zones::Zone;

/// A zone of an instance, and what is fixed about it.
pub(super) struct ZoneData {
    /// The zone.
    pub(super) zone: Zone,
    /// Where the addresses of the zone itself are.
    pub(super) apex: Name,
    /// Where its name servers are.
    pub(super) ns: Name,
    /// SkyDNS's name for this server.
    pub(super) local: Name,
    serial: Arc<AtomicI64>,
    serial_is_time: bool,
    // The SOA's RNAME; where it ends in the zone, only what stands before that.
    rname: Box<[u8]>,
    rname_is_in_zone: bool,
    // Refresh, retry and expire.
    times: [u32; 3],
    min_ttl: u32,
    like_skydns: bool,
}

/// Room for [`ZoneData::soa`].
pub(super) const SOA_OCTETS: usize = 64 + NAME_OCTETS_MAX;

impl ZoneData {
    pub(super) fn new(zone: Zone, serial: Arc<AtomicI64>, style: &Style) -> ZoneData {
        // A zone that leaves no room for the reserved names has none of them.
        let below = |label: &[u8]| {
            let dns = zone.name.child(b"dns");
            dns.and_then(|dns| dns.child(label))
                .unwrap_or_else(|_| zone.name.clone())
        };
        let (rname, rname_is_in_zone) = rname(&zone, style.hostmaster.as_ref());
        let like_skydns = style.sky.is_some();
        ZoneData {
            apex: below(b"apex"),
            ns: below(b"ns"),
            local: below(b"local"),
            zone,
            serial,
            serial_is_time: style.serial_is_time,
            rname,
            rname_is_in_zone,
            times: match like_skydns {
                true => [28_800, 7200, 604_800],
                false => [7200, 1800, 86_400],
            },
            min_ttl: style.min_ttl,
            like_skydns,
        }
    }

    /// The path of a zone's keys.
    pub(super) fn path(zone: &Zone) -> Vec<u8> {
        path_of(zone.name.as_wire()).unwrap_or_default()
    }

    fn serial(&self) -> u32 {
        if !self.serial_is_time {
            // RFC 1982: serials are compared modulo 2^32.
            return self.serial.load(Ordering::Relaxed) as u32;
        }
        let now = crate::kit::clock::unix_now().as_secs();
        // SkyDNS's serial moves once an hour.
        let step = if self.like_skydns { 3600 } else { 1 };
        (now - now % step) as u32
    }

    /// The SOA record of a negative answer.
    pub(super) fn negative_soa<'o>(
        &self,
        qname_octets: usize,
        out: &'o mut [u8; SOA_OCTETS],
    ) -> &'o [u8] {
        self.soa(qname_octets, self.min_ttl, out)
    }

    /// The SOA record, pointing into a question of `qname_octets`: `out` and how much of it.
    pub(super) fn soa<'o>(
        &self,
        qname_octets: usize,
        ttl: u32,
        out: &'o mut [u8; SOA_OCTETS],
    ) -> &'o [u8] {
        let zone = self.zone.name.as_wire();
        let pointer = match zone.len() {
            0 | 1 => None,
            octets => Some(0xc000 | (12 + qname_octets.saturating_sub(octets)) as u16),
        };
        let mut at = 0;
        let mut put = |octets: &[u8]| {
            if let Some(room) = out.get_mut(at..at + octets.len()) {
                room.copy_from_slice(octets);
                at += octets.len();
            }
        };
        let zone_octets: &[u8] = match &pointer {
            Some(pointer) => &pointer.to_be_bytes(),
            None => &[0],
        };
        const MNAME: &[u8] = b"\x02ns\x03dns";
        let behind_rname = match self.rname_is_in_zone {
            true => zone_octets,
            false => &[],
        };
        let rdlength = MNAME.len() + zone_octets.len() + self.rname.len() + behind_rname.len() + 20;
        put(zone_octets);
        put(&Rtype::SOA.0.to_be_bytes());
        put(&Class::IN.0.to_be_bytes());
        put(&ttl.to_be_bytes());
        put(&(rdlength as u16).to_be_bytes());
        put(MNAME);
        put(zone_octets);
        put(&self.rname);
        put(behind_rname);
        let [refresh, retry, expire] = self.times;
        for number in [self.serial(), refresh, retry, expire, self.min_ttl] {
            put(&number.to_be_bytes());
        }
        out.get(..at).unwrap_or_default()
    }
}

/// The RNAME of a zone, without the zone at its end if it is in it.
fn rname(zone: &Zone, hostmaster: Option<&Name>) -> (Box<[u8]>, bool) {
    let zone = zone.name.as_wire();
    let Some(hostmaster) = hostmaster else {
        return (b"\x0ahostmaster"[..].into(), true);
    };
    let name = hostmaster.as_wire();
    let head = name.get(..name.len().saturating_sub(zone.len()));
    match head {
        Some(head) if is_within(&name.to_ascii_lowercase(), zone) => (head.into(), true),
        _ => (name.into(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::super::style::{Sky, Subtree};
    use super::*;

    #[test]
    fn the_clock_of_skydns_moves_once_an_hour_and_names_are_pointers_where_they_can_be() {
        let sky = Sky {
            local: None,
            ndots: 2,
            no_rec: false,
            completion_ttl: 60,
        };
        let style = |sky, hostmaster: Option<&str>| Style {
            sky,
            subtree: Subtree::On,
            apex_is_own: false,
            query_wildcards: true,
            record_wildcards: false,
            auto_ptr: false,
            ttl: 3600,
            min_ttl: 60,
            priority: 10,
            hostmaster: hostmaster.map(|name| Name::parse(name).expect("a name")),
            serial_is_time: true,
        };
        let zone = |style: &Style| {
            let zone = Zone::parse("example.org").expect("a zone");
            ZoneData::new(zone, Arc::new(AtomicI64::new(7)), style)
        };
        let own = zone(&style(Some(sky.clone()), None));
        assert_eq!(own.serial() % 3600, 0);
        let mut room = [0; SOA_OCTETS];
        let len = own.soa(17, 5, &mut room).len();
        // Owner, type to length, MNAME, RNAME, five numbers.
        assert_eq!(len, 2 + 10 + 9 + 13 + 20);
        let within = zone(&style(Some(sky.clone()), Some("hm.Example.org")));
        assert_eq!(within.soa(17, 5, &mut room).len(), len - 8);
        let elsewhere = zone(&style(Some(sky), Some("hm.example.net")));
        assert_eq!(elsewhere.soa(17, 5, &mut room).len(), len - 13 + 16);
    }
}
