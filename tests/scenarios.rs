//! Every conversation is a test: `plugins/*/scenarios/*.dns` and `tests/scenarios/**/*.dns`.
//!
//! `cargo test --test scenarios cache` runs those with `cache` in their path; `UPDATE=1` rewrites what came out differently.
//! The harness is a small one of our own, so that each file is a test with a name; it speaks libtest's language.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use skein_plugins::PLUGINS;
use skein_plugins::kit::testing::scenario;

fn main() -> ExitCode {
    let options = Options::read(std::env::args().skip(1));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = scenario::files([root.join("plugins"), root.join("tests/scenarios")]);
    let found = files.len();
    let tests: Vec<(String, PathBuf)> = files
        .into_iter()
        .map(|file| (name(root, &file), file))
        .filter(|(name, _)| options.selects(name))
        .collect();
    if options.list {
        tests
            .iter()
            .for_each(|(name, _)| say(&format!("{name}: test")));
        return ExitCode::SUCCESS;
    }
    run(&tests, found - tests.len())
}

/// `plugins/cache/scenarios/ages.dns` is `cache/ages`, `tests/scenarios/x/y.dns` is `x/y`.
fn name(root: &Path, file: &Path) -> String {
    let path = file.strip_prefix(root).unwrap_or(file).with_extension("");
    let words: Vec<_> = path
        .components()
        .map(|word| word.as_os_str().to_string_lossy())
        .filter(|word| !["plugins", "tests", "scenarios"].contains(&word.as_ref()))
        .collect();
    words.join("/")
}

fn run(tests: &[(String, PathBuf)], filtered: usize) -> ExitCode {
    say(&format!("\nrunning {} tests", tests.len()));
    let began = Instant::now();
    let failures = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((name, file)) = tests.get(next.fetch_add(1, Relaxed)) {
                    // A panic of the code under test is that test's failure and nobody else's.
                    let outcome = std::panic::catch_unwind(|| {
                        scenario::run_file(file, PLUGINS, scenario::updating())
                    })
                    .unwrap_or_else(|_| Err("it panicked, see above".to_owned()));
                    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
                    say(&format!("test {name} ... {word}"));
                    if let (Err(what), Ok(mut failures)) = (outcome, failures.lock()) {
                        failures.push((name, what));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_default();
    failures.sort();
    for (name, what) in &failures {
        say(&format!("\n---- {name} ----\n{what}"));
    }
    let word = if failures.is_empty() { "ok" } else { "FAILED" };
    say(&format!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        tests.len() - failures.len(),
        failures.len(),
        began.elapsed().as_secs_f64()
    ));
    ExitCode::from(u8::from(!failures.is_empty()))
}

#[expect(
    clippy::print_stdout,
    reason = "a test harness reports on standard output"
)]
fn say(line: &str) {
    println!("{line}");
}

/// What of libtest's command line is understood; the rest is taken and ignored.
#[derive(Default)]
struct Options {
    list: bool,
    exact: bool,
    filters: Vec<String>,
    skips: Vec<String>,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Options {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => options.list = true,
                "--exact" => options.exact = true,
                "--skip" => options.skips.extend(words.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => {
                    words.next();
                }
                word if word.starts_with('-') => {}
                _ => options.filters.push(word),
            }
        }
        options
    }

    fn selects(&self, name: &str) -> bool {
        let matches = |filter: &String| match self.exact {
            true => name == filter,
            false => name.contains(filter.as_str()),
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skips.iter().any(matches)
    }
}
