//! What CoreDNS accepts and refuses at setup, plugin by plugin: the cases of its behaviour that one would not guess. Each directive stands
//! alone in a server block, whose setup runs and starts nothing.

use skein_plugins::PLUGINS;
use skein_plugins::kit::testing::server::check;

/// Every directive that does not do as it should.
#[track_caller]
fn expect(accepted: &[&str], refused: &[&str]) {
    let errors = |directive: &str| check(PLUGINS, &format!("example.org {{\n{directive}\n}}\n"));
    let mut wrong = Vec::new();
    for directive in accepted {
        if let Err(errors) = errors(directive) {
            wrong.push(format!("refused: {directive}\n{errors}"));
        }
    }
    for directive in refused {
        if errors(directive).is_ok() {
            wrong.push(format!("accepted: {directive}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn root() {
    expect(
        &["root /", "root /no/such/folder"],
        &["root", "root {\n/\n}", "root { }"],
    );
}

#[test]
fn reload() {
    expect(
        &[
            "reload",
            "reload 10s",
            "reload 2s 1s",
            "reload 10s 0s",
            "reload 10s 0",
        ],
        &[
            "reload 10s 5s 1s",
            "reload 1s",
            "reload 10s 500ms",
            "reload 10",
            "reload x",
        ],
    );
}

#[test]
fn bufsize() {
    expect(
        &["bufsize", "bufsize 512", "bufsize 4096"],
        &[
            "bufsize 511",
            "bufsize 4097",
            "bufsize text",
            "bufsize 512 513",
            "bufsize -1",
        ],
    );
}

#[test]
fn bind() {
    expect(
        &[
            "bind 127.0.0.1",
            "bind lo",
            "bind 127.0.0.1 ::1",
            "bind 127.0.0.1\nbind ::1",
            "bind lo {\nexcept ::1\n}",
        ],
        &[
            "bind",
            "bind no-such-interface",
            "bind lo {\nexcept\n}",
            "bind lo {\nexept ::1\n}",
            "bind 127.0.0.1:53",
        ],
    );
}

#[test]
fn ready_and_health() {
    expect(
        &[
            "ready",
            "ready localhost:0",
            "ready :8181 {\nmonitor continuously\n}",
            "health",
            "health localhost:0",
            "health :8080 {\nlameduck 5s\n}",
        ],
        &[
            "ready bla",
            "ready localhost:1 localhost:2",
            "ready {\nmonitor sometimes\n}",
            "ready\nready",
            "health bla",
            "health {\nlameduck a\n}",
            "health {\nlamedudk 5s\n}",
            "health {\nlameduck\n}",
        ],
    );
}

#[test]
fn prometheus() {
    expect(
        &[
            "prometheus",
            "prometheus localhost:53",
            "metrics localhost:53",
            "prometheus localhost:0 {\nruntime_metrics\n}",
        ],
        &[
            "prometheus /foo",
            "prometheus a:1 b:2",
            "prometheus {\nnothing\n}",
            "prometheus\nprometheus",
            "prometheus\nmetrics",
        ],
    );
}

#[test]
fn errors() {
    expect(
        &[
            "errors",
            "errors stdout",
            "errors {\nstacktrace\n}",
            "errors {\nconsolidate 1m \".*\" warning\n}",
            "errors {\nconsolidate 1m \"format error\" info show_first\nconsolidate 5s x\n}",
        ],
        &[
            "errors x",
            "errors\nerrors",
            "errors {\nconsolidate 1m\n}",
            "errors {\nconsolidate 1 .*\n}",
            "errors {\nconsolidate 1m (\n}",
            "errors {\nconsolidate 1m x sometimes\n}",
            "errors {\nconsolidate 1m x info warning\n}",
            "errors {\nconsolidate 1m x show_first info\n}",
        ],
    );
}

#[test]
fn log() {
    expect(
        &[
            "log",
            "log example.org",
            "log . \"{host} {type}\"",
            "log . \"{combined} {/forward/upstream}\"",
            "log {\nclass denial\nclass error success\n}",
            "log {\nclass all\n}\nlog example.org {\nclass error\n}",
        ],
        &[
            "log {\nclass\n}",
            "log {\nclass sometimes\n}",
            "log {\nklass all\n}",
        ],
    );
}

#[test]
fn loadbalance() {
    expect(
        &["loadbalance", "loadbalance round_robin"],
        &[
            "loadbalance round_robin a",
            "loadbalance weighted",
            "loadbalance weighted a b",
            "loadbalance other",
        ],
    );
}

#[test]
fn cache() {
    expect(
        &[
            "cache",
            "cache 10",
            "cache {}",
            "cache aaa example.nl",
            "cache 3600 example.org {\nsuccess 9984 3600 5\ndenial 9984 1800 5\n}",
            "cache {\nsuccess 15\ndenial 15\n}",
            "cache {\nsuccess 10 1800 30\n}",
            "cache {\nprefetch 10\n}",
            "cache {\nprefetch 10 10m 15%\n}",
            "cache {\nserve_stale\n}",
            "cache {\nserve_stale 1h\n}",
            "cache {\nserve_stale 0 VERIFY\n}",
            "cache {\nserve_stale 1h verify 100ms\n}",
            "cache {\nserve_stale 1h immediate 4294967295s\n}",
            "cache {\nservfail 5m\n}",
            "cache {\nservfail 0\n}",
            "cache {\ndisable success example.org\ndisable denial\n}",
            "cache {\nkeepttl\n}",
        ],
        &[
            "cache 0",
            "cache -1",
            "cache\ncache",
            "cache {\nsuccess\n}",
            "cache {\ndenial 10 0\n}",
            "cache {\nsuccess x\n}",
            "cache {\nsuccess 10 100 -5\n}",
            "cache {\nprefetch\n}",
            "cache {\nprefetch -1\n}",
            "cache {\nprefetch 10 10m 15\n}",
            "cache {\nprefetch 10 10m 95%\n}",
            "cache {\nserve_stale 20\n}",
            "cache {\nserve_stale -20s\n}",
            "cache {\nserve_stale 1h sometimes\n}",
            "cache {\nserve_stale 1h immediate 100ms\n}",
            "cache {\nserve_stale 1h immediate 4294967296s\n}",
            "cache {\nserve_stale 1h verify -1s\n}",
            "cache {\nserve_stale_policy prefer_positive\n}",
            "cache {\nserve_stale 1h\nserve_stale_policy other\n}",
            "cache {\nservfail 6m\n}",
            "cache {\nservfail 20\n}",
            "cache {\ndisable\n}",
            "cache {\ndisable both\n}",
            "cache {\nkeepttl 5\n}",
            "cache {\nunknown\n}",
        ],
    );
}

#[test]
fn forward() {
    expect(
        &[
            "forward . 127.0.0.1",
            "forward . 127.0.0.1 {\nforce_tcp\nprefer_udp\n}",
            "forward 10.9.3.0/18 127.0.0.1",
            "forward . 127.0.0.1:53 [2001:db8::1]:5353 dns://192.0.2.1",
            "forward . 127.0.0.1 {\nexcept a.example.org\nmax_fails 0\nexpire 5s\nmax_age 5s\nread_timeout 1s\n}",
            "forward . 127.0.0.1 {\nhealth_check 0.5s no_rec domain example.org\n}",
            "forward . 127.0.0.1 {\npolicy sequential\nnext NXDOMAIN servfail\n}",
            "forward . 127.0.0.1 {\nmax_concurrent 1000\n}\nforward example.org 127.0.0.2",
            "forward . 127.0.0.1 {\nsource_address 127.0.0.1\n}",
        ],
        &[
            "forward",
            "forward .",
            "forward . a27.0.0.1x:port",
            "forward aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 127.0.0.1",
            "forward . https://1.1.1.1/",
            "forward . quic://127.0.0.1",
            "forward . 127.0.0.1 {\nhealth_check no_rec\n}",
            "forward . 127.0.0.1 {\nhealth_check 0.5s rec\n}",
            "forward . 127.0.0.1 {\nhealth_check 0.5s domain example..org\n}",
            "forward . 127.0.0.1 {\nhealth_check -1s\n}",
            "forward . 127.0.0.1 {\nmax_fails -1\n}",
            "forward . 127.0.0.1 {\nmax_connect_attempts x\n}",
            "forward . 127.0.0.1 {\nexpire 10s\nmax_age 5s\n}",
            "forward . 127.0.0.1 {\nread_timeout 0s\n}",
            "forward . 127.0.0.1 {\nnext\n}",
            "forward . 127.0.0.1 {\nnext SOMETIMES\n}",
            "forward . 127.0.0.1 {\nfailover NOERROR\n}",
            "forward . 127.0.0.1 {\npolicy other\n}",
            "forward . 127.0.0.1 {\nforce_tcp x\n}",
            "forward . 127.0.0.1 {\nmax_concurrent -1\n}",
            "forward . 127.0.0.1 {\nsource_address x\n}",
            "forward . 127.0.0.1 {\nunknown\n}",
            "forward . 127.0.0.1 127.0.0.2 127.0.0.3 127.0.0.4 127.0.0.5 127.0.0.6 127.0.0.7 127.0.0.8 127.0.0.9 127.0.0.10 127.0.0.11 127.0.0.12 127.0.0.13 127.0.0.14 127.0.0.15 127.0.0.16",
        ],
    );
}

#[test]
fn etcd() {
    expect(
        &[
            "etcd",
            "etcd example.org {\nendpoint localhost:300\n}",
            "etcd {\npath /skydns\nendpoint http://localhost:2379 http://localhost:2380\nfallthrough\n}",
            "etcd {\nstubzones\nupstream 192.0.2.1:53\ndebug\n}",
            "etcd {\ncredentials user password\n}",
            "etcd {\nmin-lease-ttl 30\nmax-lease-ttl 2h30m\n}",
            "etcd {\nmin-lease-ttl 0\n}",
        ],
        &[
            "etcd {\nendpoints http://localhost:2379\n}",
            "etcd {\ncredentials user\n}",
            "etcd {\ncredentials\n}",
            "etcd {\npath\n}",
            "etcd {\nendpoint\n}",
            "etcd {\nmin-lease-ttl -30s\n}",
            "etcd {\nmin-lease-ttl abc\n}",
            "etcd {\nmax-lease-ttl 1y\n}",
        ],
    );
}

#[test]
fn acl() {
    expect(
        &[
            "acl",
            "acl {\nblock type A\n}",
            "acl {\nblock type A net 192.0.2.0/24 2001:db8::1\n}",
            "acl a.example.org {\nALLOW NET 192.0.2.1\nFilter type aaaa\ndrop\n}",
            "acl {\nblock net * type *\n}\nacl {\nallow\n}",
        ],
        &[
            "acl {\nblock A net 192.0.2.1\n}",
            "acl {\nblock type net 192.0.2.1\n}",
            "acl {\nblock net\n}",
            "acl {\nblock type ABC net 192.0.2.1\n}",
            "acl {\nblock net 192.168.0/16\n}",
            "acl {\nblock net 192.0.2.0/33\n}",
            "acl {\nblok type A\n}",
        ],
    );
}

#[test]
fn hosts() {
    expect(
        &[
            "hosts",
            "hosts /tmp",
            "hosts /no/such/file",
            "hosts /etc/hosts highly.example.org www.example.org 192.0.2.0/24",
            "hosts {\nttl 65535\nreload 0\nno_reverse\n}",
            "hosts /etc/hosts {\n192.0.2.1 a.example.org\nfallthrough a.example.org\nfallthrough_unsupported\n}",
            "hosts {\nno such line\nfallthrough\n}",
            "hosts {\nfallthrough\n192.0.2.1 a.example.org\n}",
        ],
        &[
            "hosts\nhosts",
            "hosts {\nttl\n}",
            "hosts {\nttl 0\n}",
            "hosts {\nttl -1\n}",
            "hosts {\nttl 65536\n}",
            "hosts {\nttl x\n}",
            "hosts {\nreload\n}",
            "hosts {\nreload -1s\n}",
            "hosts {\nreload x\n}",
            "hosts {\nfallthrough\nno such line\n}",
            "hosts {\nfallthrough_unsupported\n}",
            "hosts {\nfallthrough\nfallthrough_unsupported example.org\n}",
            "hosts {\nno_reverse x\n}",
        ],
    );
}

#[test]
fn header() {
    expect(
        &[
            "header {\nresponse set ra aa\n}",
            "header {\nquery clear RD\nresponse set AA\n}\nheader {\nresponse clear rd\n}",
        ],
        &[
            "header",
            "header {}",
            "header {\nresponse set\n}",
            "header {\nresponse\n}",
            "header {\nquery foo rd\n}",
            "header {\nanswer set ra\n}",
            "header {\nresponse set tc\n}",
            "header response set ra",
        ],
    );
}

#[test]
fn local_and_chaos() {
    expect(
        &[
            "local",
            "local {\nlocalhost_prefix off\n}",
            "chaos",
            "chaos v",
            "chaos v3 author",
            "chaos v3 \"a quoted author\" another",
        ],
        &[
            "local x",
            "local {\nlocalhost_prefix\n}",
            "local {\nlocalhost_prefix maybe\n}",
            "local {\nprefix off\n}",
            "chaos {\nversion x\n}",
        ],
    );
}

#[test]
fn plugins_without_options() {
    expect(
        &[
            "whoami",
            "debug",
            "loop",
            "nsid",
            "nsid a b \"c d\"",
            "any",
            "minimal",
        ],
        &[
            "any x",
            "any {\nx\n}",
            "minimal x",
            "minimal {\nx\n}",
            "whoami x",
            "whoami {\nx\n}",
            "debug x",
            "loop x",
            "loop\nloop",
            "nsid\nnsid",
        ],
    );
}

#[test]
fn parsing() {
    let loads = |text: &str| check(PLUGINS, text);
    for text in [
        "localhost",
        "",
        "(s) {\nlog\n}",
        "a { whoami }",
        ".:53 {\nerrors\n}\n192.0.2.0/24 {\nwhoami\n}",
    ] {
        assert_eq!(loads(text), Ok(()), "{text}");
    }
    for text in [
        "a, {\n}",
        "a,",
        "a {\nwhoami",
        ":53 {\n}",
        "a: {\n}",
        "a {\n}\na {\n}",
        "a {\nimport missing\n}",
        "a {\nnothing\n}",
        "a..b {\n}",
    ] {
        assert!(loads(text).is_err(), "{text}");
    }
}

#[test]
fn file() {
    expect(
        &[
            "file db.example.org",
            "file db.example.org 10.0.0.0/24",
            "file db.example.org example.org example.com {\nreload 10s\nfallthrough\n}",
            "file db.example.org {\nreload_by_mtime\nupstream\n}",
            "file db.example.org\nfile db.example.com example.com",
        ],
        &[
            "file",
            "file db.example.org {\nreload 0\n}",
            "file db.example.org {\nreload\n}",
            "file db.example.org {\nreload 10\n}",
            "file db.example.org {\ntransfer from 192.0.2.1\n}",
            "file db.example.org {\nno_reload\n}",
        ],
    );
}
