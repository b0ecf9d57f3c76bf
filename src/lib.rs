//! SkeinDNS.
