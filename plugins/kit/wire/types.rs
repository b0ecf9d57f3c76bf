//! The numbers of DNS with their mnemonics (IANA "Domain Name System (DNS) Parameters").

use std::fmt;
use std::str::FromStr;

/// A record type (RFC 1035 §3.2.2 and successors).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Rtype(pub u16);

/// A class (RFC 1035 §3.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Class(pub u16);

/// A response code, extended ones included (RFC 6895 §2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Rcode(pub u16);

/// An opcode (RFC 6895 §2.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Opcode(pub u8);

macro_rules! numbers {
    ($type:ident, $int:ty, $generic:literal, $($(#[$doc:meta])* $name:ident $text:literal = $value:literal),+ $(,)?) => {
        #[allow(missing_docs, reason = "the mnemonics are the documentation")]
        impl $type { $($(#[$doc])* pub const $name: $type = $type($value);)+ }
        impl $type {
            /// The registered mnemonic, if there is one.
            pub fn mnemonic(self) -> Option<&'static str> {
                match self.0 { $($value => Some($text),)+ _ => None }
            }
            /// Reads a mnemonic in any case, or the generic form (RFC 3597 §5).
            pub fn parse(text: &str) -> Option<$type> {
                $(if text.eq_ignore_ascii_case($text) { return Some($type($value)); })+
                let digits = if $generic.is_empty() { text } else {
                    let (head, digits) = text.split_at_checked($generic.len())?;
                    if !head.eq_ignore_ascii_case($generic) { return None; }
                    digits
                };
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) { return None; }
                <$int>::from_str(digits).ok().map($type)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.mnemonic() {
                    Some(text) => f.pad(text),
                    None => write!(f, "{}{}", $generic, self.0),
                }
            }
        }
    };
}

numbers!(Rtype, u16, "TYPE",
    A "A" = 1, NS "NS" = 2, MD "MD" = 3, MF "MF" = 4, CNAME "CNAME" = 5, SOA "SOA" = 6, MB "MB" = 7, MG "MG" = 8, MR "MR" = 9,
    NULL "NULL" = 10, WKS "WKS" = 11, PTR "PTR" = 12, HINFO "HINFO" = 13, MINFO "MINFO" = 14, MX "MX" = 15, TXT "TXT" = 16,
    RP "RP" = 17, AFSDB "AFSDB" = 18, X25 "X25" = 19, ISDN "ISDN" = 20, RT "RT" = 21, NSAP "NSAP" = 22, SIG "SIG" = 24,
    KEY "KEY" = 25, PX "PX" = 26, GPOS "GPOS" = 27, AAAA "AAAA" = 28, LOC "LOC" = 29, NXT "NXT" = 30, EID "EID" = 31, NIMLOC "NIMLOC" = 32,
    SRV "SRV" = 33, ATMA "ATMA" = 34, NAPTR "NAPTR" = 35, KX "KX" = 36, CERT "CERT" = 37, A6 "A6" = 38, DNAME "DNAME" = 39,
    SINK "SINK" = 40, OPT "OPT" = 41, APL "APL" = 42, DS "DS" = 43, SSHFP "SSHFP" = 44, IPSECKEY "IPSECKEY" = 45, RRSIG "RRSIG" = 46,
    NSEC "NSEC" = 47, DNSKEY "DNSKEY" = 48, DHCID "DHCID" = 49, NSEC3 "NSEC3" = 50, NSEC3PARAM "NSEC3PARAM" = 51, TLSA "TLSA" = 52,
    SMIMEA "SMIMEA" = 53, HIP "HIP" = 55, CDS "CDS" = 59, CDNSKEY "CDNSKEY" = 60, OPENPGPKEY "OPENPGPKEY" = 61, CSYNC "CSYNC" = 62,
    ZONEMD "ZONEMD" = 63, SVCB "SVCB" = 64, HTTPS "HTTPS" = 65, SPF "SPF" = 99, NID "NID" = 104, L32 "L32" = 105, L64 "L64" = 106,
    LP "LP" = 107, EUI48 "EUI48" = 108, EUI64 "EUI64" = 109, TKEY "TKEY" = 249, TSIG "TSIG" = 250, IXFR "IXFR" = 251, AXFR "AXFR" = 252,
    MAILB "MAILB" = 253, MAILA "MAILA" = 254, ANY "ANY" = 255, URI "URI" = 256, CAA "CAA" = 257, AVC "AVC" = 258, TA "TA" = 32768, DLV "DLV" = 32769,
);
numbers!(Class, u16, "CLASS", IN "IN" = 1, CH "CH" = 3, HS "HS" = 4, NONE "NONE" = 254, ANY "ANY" = 255);
numbers!(Opcode, u8, "OPCODE", QUERY "QUERY" = 0, IQUERY "IQUERY" = 1, STATUS "STATUS" = 2, NOTIFY "NOTIFY" = 4, UPDATE "UPDATE" = 5, DSO "DSO" = 6);
numbers!(Rcode, u16, "RCODE",
    NOERROR "NOERROR" = 0, FORMERR "FORMERR" = 1, SERVFAIL "SERVFAIL" = 2, NXDOMAIN "NXDOMAIN" = 3, NOTIMP "NOTIMP" = 4,
    REFUSED "REFUSED" = 5, YXDOMAIN "YXDOMAIN" = 6, YXRRSET "YXRRSET" = 7, NXRRSET "NXRRSET" = 8, NOTAUTH "NOTAUTH" = 9,
    NOTZONE "NOTZONE" = 10, DSOTYPENI "DSOTYPENI" = 11, BADVERS "BADVERS" = 16, BADKEY "BADKEY" = 17, BADTIME "BADTIME" = 18,
    BADMODE "BADMODE" = 19, BADNAME "BADNAME" = 20, BADALG "BADALG" = 21, BADTRUNC "BADTRUNC" = 22, BADCOOKIE "BADCOOKIE" = 23,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mnemonics_read_and_print_alike() {
        for n in 0..=u16::MAX {
            assert_eq!(Rtype::parse(&Rtype(n).to_string()), Some(Rtype(n)));
        }
        assert_eq!(Rtype::parse("aaaa"), Some(Rtype::AAAA));
        assert_eq!(Rtype::parse("TYPE"), None);
        assert_eq!(Rtype::parse("TYPE70000"), None);
        assert_eq!(Rtype::parse("é"), None);
    }
}
