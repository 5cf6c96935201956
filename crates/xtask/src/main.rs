//! `cargo xtask …`: what the project does to itself.

mod bench;
mod experiment;
mod fuzz;
mod run;
mod setup;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test            install what the tests need (as root, from Debian), then run all of them
  test --long     the same, and what takes hours of switches to show
  setup           only install what the tests need
  tidy            check the budgets and forbidden dependencies of the code
  fuzz [--seconds N]
                  every parser of bytes from outside against a fuzzer, 60 seconds each unless it is said otherwise; takes a
                  nightly compiler
  soak --minutes N
                  the edge under all kinds of load, through switches and successions; fails on one dropped request
  experiment fleet [--minutes N]
                  p^N on real fleets in place, and what replacing makes of it; writes docs/fleet.md and its plot
                  (45 minutes unless it is said otherwise; as root)
  bench engine    time instances beside crun, runc, podman and the bare kernel   [--json]
  bench spine     time this version: cold and warm bake, deploy, first answer   [--json]
  bench deploy    deploys and rollbacks, planning at size, a host with a long past      [--json]
  bench edge [CASE]
                  the edge beside haproxy, nginx and caddy, by wrk and h2load; ten minutes, or only the cases that
                  have CASE in their name, e.g. http1                                    [--json]
  bench bake      baking beside mmdebstrap and buildah from Debian, which it installs             [--json]
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["test"] => test::run(),
        ["test", "--long"] => test::run_long(),
        ["soak", "--minutes", minutes] => minutes.parse().map_err(Into::into).and_then(soak::run),
        ["fuzz"] => fuzz::run(60),
        ["fuzz", "--seconds", seconds] => seconds.parse().map_err(Into::into).and_then(fuzz::run),
        ["experiment", "fleet"] => experiment::run(45),
        ["experiment", "fleet", "--minutes", minutes] => {
            minutes.parse().map_err(Into::into).and_then(experiment::run)
        }
        ["setup"] => setup::run(),
        ["tidy"] => tidy::run(),
        ["bench", "engine"] => bench::engine::run(false),
        // How the one above calls itself, apart.
        ["bench", "engine-peers", count] => {
            count.parse().map_err(Into::into).and_then(bench::engine::peers::run)
        }
        ["bench", "engine", "--json"] => bench::engine::run(true),
        ["bench", "spine"] => bench::run(false),
        ["bench", "spine", "--json"] => bench::run(true),
        ["bench", "edge"] => bench::edge::run("", false),
        ["bench", "edge", "--json"] => bench::edge::run("", true),
        ["bench", "edge", case] => bench::edge::run(case, false),
        ["bench", "edge", case, "--json"] => bench::edge::run(case, true),
        ["bench", "bake"] => bench::bake::run(false),
        ["bench", "bake", "--json"] => bench::bake::run(true),
        ["bench", "deploy"] => bench::deploy::run(false),
        ["bench", "deploy", "--json"] => bench::deploy::run(true),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
