//! From a reverse name to the address it stands for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::kit::wire::name::labels;

/// The address of `4.3.2.1.in-addr.arpa` (RFC 1035 §3.5) or its like below `ip6.arpa` (RFC 3596 §2.5); the name lower-cased, in wire form.
pub(super) fn address_of(qname: &[u8]) -> Option<IpAddr> {
    if qname.ends_with(b"\x07in-addr\x04arpa\0") {
        in_addr(qname).map(IpAddr::V4)
    } else if qname.ends_with(b"\x03ip6\x04arpa\0") {
        Some(IpAddr::V6(ip6(qname)?).to_canonical())
    } else {
        None
    }
}

fn in_addr(qname: &[u8]) -> Option<Ipv4Addr> {
    let mut labels = labels(qname);
    let mut octets = [0; 4];
    for octet in octets.iter_mut().rev() {
        let label = labels.next()?;
        // One spelling for each octet: no sign, no zero in front.
        if label.len() > 1 && label.first() == Some(&b'0') {
            return None;
        }
        *octet = label.iter().try_fold(0u8, |value, digit| {
            let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
            value.checked_mul(10)?.checked_add(digit)
        })?;
    }
    (labels.count() == 2).then_some(octets.into())
}

fn ip6(qname: &[u8]) -> Option<Ipv6Addr> {
    let mut labels = labels(qname);
    let mut bits = 0u128;
    for nibble in 0..32 {
        let [digit] = labels.next()? else {
            return None;
        };
        bits |= u128::from(char::from(*digit).to_digit(16)?) << (4 * nibble);
    }
    (labels.count() == 2).then_some(bits.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::wire::Name;

    fn address(text: &str) -> Option<String> {
        let name = Name::parse(text).unwrap();
        address_of(name.as_wire()).map(|address| address.to_string())
    }

    #[test]
    fn whole_reverse_names_only() {
        let v4 = |text: &str| address(&format!("{text}.in-addr.arpa"));
        assert_eq!(v4("1.2.0.192").as_deref(), Some("192.0.2.1"));
        assert_eq!(v4("0.0.0.0").as_deref(), Some("0.0.0.0"));
        for text in [
            "2.0.192",
            "9.1.2.0.192",
            "01.2.0.192",
            "256.2.0.192",
            "x.2.0.192",
            "+1.2.0.192",
            "1111.2.0.192",
        ] {
            assert_eq!(v4(text), None, "{text}");
        }
        let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2";
        assert_eq!(
            address(&format!("{nibbles}.ip6.arpa")).as_deref(),
            Some("2001:db8::1")
        );
        assert_eq!(address(&format!("0.{nibbles}.ip6.arpa")), None);
        assert_eq!(address("1.0.0.2.ip6.arpa"), None);
        assert_eq!(address("in-addr.arpa"), None);
        assert_eq!(address("1.2.0.192.example"), None);
    }
}
