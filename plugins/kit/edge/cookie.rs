//! Server cookies (RFC 7873, RFC 9018): a client that sends one back has received our packets at its address.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// The EDNS option's code (RFC 7873 §4).
pub(super) const COOKIE: u16 = 10;
/// Octets of a client cookie.
const CLIENT_OCTETS: usize = 8;
/// Octets of a client cookie with a server cookie of ours.
pub(crate) const COOKIE_OCTETS: usize = 24;

/// What server cookies are made with; of this process alone.
pub(super) struct Secret([u8; 16]);

impl Secret {
    pub(super) fn random() -> Secret {
        Secret(rand::random())
    }

    #[cfg(test)]
    pub(super) fn fixed(octets: [u8; 16]) -> Secret {
        Secret(octets)
    }

    /// The cookie that answers `option`; `None` if the option is malformed.
    ///
    /// Cookies are given, not asked for: no query is refused for want of one, so that what a client sends back is not looked at.
    pub(super) fn answer(
        &self,
        option: &[u8],
        client: IpAddr,
        unix_seconds: u32,
    ) -> Option<[u8; COOKIE_OCTETS]> {
        // RFC 7873 §5.2.2: a client cookie alone, or with a server cookie of 8 to 32 octets; anything else is malformed.
        if option.len() != CLIENT_OCTETS && !(16..=40).contains(&option.len()) {
            return None;
        }
        let mut cookie = [0; COOKIE_OCTETS];
        let client_cookie = option.first_chunk::<CLIENT_OCTETS>()?;
        cookie[..8].copy_from_slice(client_cookie);
        // RFC 9018 §4: version 1, three reserved octets, the time, then a hash over all of it and the address.
        cookie[8] = 1;
        cookie[12..16].copy_from_slice(&unix_seconds.to_be_bytes());
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&cookie[..16]);
        match client.to_canonical() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        cookie[16..].copy_from_slice(&hasher.finish().to_le_bytes());
        Some(cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    #[track_caller]
    fn check(secret: &str, client: &str, option: &str, time: u32, expected: &str) {
        let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).expect("hex");
        let secret = Secret(hex(secret).try_into().expect("16 octets"));
        let cookie = secret.answer(&hex(option), client.parse().expect("an address"), time);
        assert_eq!(
            cookie.map(|cookie| HEXLOWER.encode(&cookie)),
            Some(expected.to_owned())
        );
    }

    #[test]
    fn cookies_are_those_of_rfc_9018_appendix_a() {
        let secret = "e5e973e5a6b2a43f48e7dc849e37bfcf";
        check(
            secret,
            "198.51.100.100",
            "2464c4abcf10c957",
            1_559_731_985,
            "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
        );
        check(
            secret,
            "::ffff:198.51.100.100",
            "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
            1_559_731_985,
            "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
        );
        check(
            secret,
            "203.0.113.203",
            "fc93fc62807ddb86",
            1_559_734_700,
            "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e",
        );
        check(
            "445536bcd2513298075a5d379663c962",
            "2001:db8:220:1:59de:d0f4:8769:82b8",
            "22681ab97d52c298",
            1_559_741_961,
            "22681ab97d52c298010000005cf7c609a6bb79d16625507a",
        );
    }

    #[test]
    fn lengths_are_checked() {
        let secret = Secret([7; 16]);
        for len in 0..60 {
            let taken = secret
                .answer(&vec![1; len], IpAddr::from([192, 0, 2, 1]), 0)
                .is_some();
            assert_eq!(taken, len == 8 || (16..=40).contains(&len), "{len}");
        }
    }
}
