//! Certificates of a day: an authority, the members', and ours, written by openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
];

/// A folder of them.
pub(crate) struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Writes them, and a pair of keys for tokens.
    pub(crate) fn write(dir: &Path) -> Certificates {
        let certificates = Certificates {
            dir: dir.to_owned(),
        };
        certificates.openssl(&["genrsa", "-out", "token.key", "2048"]);
        let public = ["rsa", "-in", "token.key", "-pubout", "-out", "token.pub"];
        certificates.openssl(&public);
        certificates.rotate();
        certificates
    }

    /// Writes others of another authority into the same files, as a renewal does: each file is replaced at once.
    pub(crate) fn rotate(&self) {
        let extensions = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
        fs::write(self.dir.join("extensions"), extensions).expect("our folder");
        let ca = ["req", "-x509", "-days", "2", "-subj", "/CN=ca"];
        let to = ["-keyout", "ca.key.new", "-out", "ca.pem.new"];
        self.openssl(&[&ca[..], &to, &KEY].concat());
        for who in ["server", "client"] {
            // No common name: etcd's gateway refuses certificates that have one.
            let (subject, key, pem) = (
                format!("/O={who}"),
                format!("{who}.key.new"),
                format!("{who}.pem.new"),
            );
            let request = ["req", "-subj", &subject, "-keyout", &key, "-out", "csr"];
            self.openssl(&[&request[..], &KEY].concat());
            let sign = ["x509", "-req", "-days", "2", "-CA", "ca.pem.new"];
            let with = ["-CAkey", "ca.key.new", "-CAcreateserial"];
            let of = ["-extfile", "extensions", "-in", "csr", "-out", &pem];
            self.openssl(&[&sign[..], &with, &of].concat());
        }
        for name in [
            "ca.pem",
            "server.pem",
            "server.key",
            "client.pem",
            "client.key",
        ] {
            let new = self.dir.join(format!("{name}.new"));
            fs::rename(new, self.dir.join(name)).expect("our folder");
        }
    }

    /// The path of one.
    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn openssl(&self, args: &[&str]) {
        let output = Command::new("openssl")
            .current_dir(&self.dir)
            .args(args)
            .output()
            .expect("openssl is installed: make test-packages");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {args:?}: {errors}");
    }
}
