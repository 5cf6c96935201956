//! `cargo xtask …`: what the project does to itself.

mod bench;
mod run;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test            install what the tests need (as root, from Debian), then run all of them
  setup           only install what the tests need
  tidy            check the budgets and forbidden dependencies of the code
  bench spine     time this version: cold and warm bake, deploy, first answer   [--json]
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["test"] => test::run(),
        ["setup"] => setup::run(),
        ["tidy"] => tidy::run(),
        ["bench", "spine"] => bench::run(false),
        ["bench", "spine", "--json"] => bench::run(true),
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
