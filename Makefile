# Names for commands; each is a line or two that CONTRIBUTING.md could show as well.

CARGO ?= cargo
# Where cargo builds.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# As root, or through sudo.
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
TEST_PACKAGES := etcd-server etcd-client nsd unbound bind9-dnsutils knot knot-dnsutils ldnsutils openssl curl iproute2 lintian

.PHONY: run build test quick check deny image image-test deb deb-test cargo-deb bench chaos differential test-packages

run: build
	@echo
	@echo "Starting Dnsfile.example on 127.0.0.1:1053. In another terminal:"
	@echo "  $(TARGET)/release/skeindns service put node1.skydns.local --host 192.0.2.11"
	@echo "  dig @127.0.0.1 -p 1053 node1.skydns.local +short"
	@echo "  dig @127.0.0.1 -p 1053 www.debian.org"
	@echo "  curl -s localhost:1953/metrics | grep ^coredns_cache"
	@echo
	$(TARGET)/release/skeindns --conf Dnsfile.example

build:
	$(CARGO) build --release

# Everything that CI does.
test: test-packages check deny cargo-deb
	$(CARGO) test --workspace --no-fail-fast --features skein-plugins/testing
	tests/static.sh
	tests/deb.sh

quick:
	$(CARGO) fmt --all --check
	$(CARGO) clippy -p skein-plugins --all-targets --features testing
	$(CARGO) test -p skein-plugins --features testing --lib

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features skein-plugins/testing -- -D warnings

deny:
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources

# Servers and clients that tests talk to; distributions start some of them by themselves, which tests do not want.
test-packages:
	@missing=$$(for p in $(TEST_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	test -z "$$missing" || { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; }

image:
	$(CARGO) dist
	rm -rf $(TARGET)/image && mkdir -p $(TARGET)/image
	cp $(TARGET)/x86_64-unknown-linux-gnu/release/skeindns Dockerfile $(TARGET)/image/
	cp docs/examples/container.Dnsfile $(TARGET)/image/Dnsfile
	docker build -t skeindns $(TARGET)/image

image-test:
	tests/image.sh

# The server's and the agent's Debian packages.
deb: build cargo-deb
	$(CARGO) deb --no-build
	$(CARGO) deb --no-build --variant=register

# The same packages with the tests' binary, in a copy of this machine.
deb-test: cargo-deb test-packages
	$(CARGO) build
	tests/deb.sh

cargo-deb:
	@command -v cargo-deb >/dev/null || $(CARGO) install --locked cargo-deb

bench: build
	$(CARGO) run --release -p skein-bench -- --write docs

# What etcd may do to us, at a steady load, and how long things take: a table.
chaos: build test-packages
	SKEINDNS_BINARY=$(abspath $(TARGET))/release/skeindns $(CARGO) test --test chaos -- --ignored --nocapture in_full

bench-instructions:
	benches/instructions.sh

# Random zones and 50,000 questions to NSD, Knot and us; SEED for other zones.
differential: build test-packages
	SKEINDNS_BINARY=$(abspath $(TARGET))/release/skeindns DIFFERENTIAL_QUERIES=50000 DIFFERENTIAL_SEED=$(or $(SEED),1) $(CARGO) test --test differential -- --nocapture
