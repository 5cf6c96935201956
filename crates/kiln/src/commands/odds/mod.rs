//! `kiln odds`

mod plot;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use clap::Args;
use kiln_model::odds::{Chance, Digits, loss_budget};
use kiln_model::{ExitCode, Failure};

use crate::context::Context;
use crate::table::table;

const EXAMPLES: &str = "\
Examples:
  kiln odds                                         one upgrade in 10,000 fails: what becomes of fleets
  kiln odds --success 99%,99.9% --servers 10,1000   several chances, several fleets
  kiln odds --success 0.999 --target 99%            from how many servers on it is less likely than 99 %
  kiln odds --svg odds.svg                          the same as a picture";

/// Digits of what people read, and of what programs do.
const DIGITS: usize = 10;
const DIGITS_JSON: usize = 12;

/// The arithmetic of fleets: what becomes of N servers when each upgrade succeeds with the same chance
///
/// Upgraded in place, a fleet comes out whole with p^N. Replaced, what fails is thrown away and made again before any
/// user can see it, up to a number of instances of the whole fleet. All digits shown are right.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Odds {
    /// Chances that one server comes out right, as 99.9%, 0.999 or 999/1000
    #[arg(long, value_name = "CHANCE", value_delimiter = ',', default_value = "99.99%")]
    success: Vec<Chance>,
    /// Sizes of fleets
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,10,50,100,500,1000",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    servers: Vec<u64>,
    /// How many instances of a fleet may be made again [default: as `kiln deploy` does, half of the fleet less one, 2 at
    /// least]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=100_000))]
    retries: Option<u64>,
    /// The chance that is wanted: from how many servers on an upgrade in place falls below it
    #[arg(long, value_name = "CHANCE", default_value = "99%")]
    target: Chance,
    /// Writes a plot to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Odds {
    /// How many instances of a fleet of `servers` may be made again.
    fn retries(&self, servers: u64) -> u64 {
        // The loss that makes the budget full is not made good any more.
        self.retries.unwrap_or_else(|| loss_budget(servers) - 1)
    }
}

pub(crate) fn run(args: &Odds, context: &Context) -> Result<(), Failure> {
    if let Some(file) = &args.svg {
        let picture = plot::svg(&args.success, &args.servers, &|servers| args.retries(servers));
        std::fs::write(file, picture).map_err(|e| {
            let code = if is_of_the_name(&e) { ExitCode::Usage } else { ExitCode::Host };
            Failure::new(code, format!("could not write {}", file.display())).because(e.to_string())
        })?;
    }
    let rows = args.success.iter().flat_map(|p| args.servers.iter().map(move |n| (p, *n)));
    let documents: Vec<_> = rows.map(|(p, n)| document(args, p, n)).collect();
    context.output.result(&documents, || words_for(args))
}

/// Whether another name would help: a disk that is full or broken is the host's affair.
fn is_of_the_name(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let of_names = [Kind::NotFound, Kind::NotADirectory, Kind::IsADirectory, Kind::InvalidFilename];
    error.kind() == Kind::PermissionDenied || of_names.contains(&error.kind())
}

/// One fleet, for programs: chances as numbers from 0 to 1 with twelve significant digits.
fn document(args: &Odds, p: &Chance, servers: u64) -> serde_json::Value {
    let retries = args.retries(servers);
    let chances = [
        ("in_place", p.in_place(servers, DIGITS_JSON)),
        ("between_states", p.left_between(servers, DIGITS_JSON)),
        ("replace", p.replaced(servers, retries, DIGITS_JSON)),
        ("replace_fails", p.not_replaced(servers, retries, DIGITS_JSON)),
    ];
    // Most programs take a number below 1e-308 for nothing, and one close enough to 1 for 1.
    let exactly: BTreeMap<&str, String> =
        chances.iter().map(|(name, digits)| (*name, digits.scientific())).collect();
    let mut document = serde_json::json!({
        "success": p.about(),
        "servers": servers,
        "retries": retries,
        "target": args.target.about(),
        "falls_below_at": p.falls_below(&args.target),
        "digits": exactly,
    });
    for (name, digits) in chances {
        document[name] = digits.about().into();
    }
    document
}

fn words_for(args: &Odds) -> String {
    let pairs = args.success.iter().flat_map(|p| args.servers.iter().map(move |n| (p, *n)));
    let rows: Vec<[String; 6]> = pairs.map(|(p, n)| row(p, n, args.retries(n))).collect();
    let mut lines = vec![table(
        ["EACH SUCCEEDS", "SERVERS", "IN PLACE: WHOLE", "LEFT BETWEEN", "MADE AGAIN", "REPLACED: NOT WHOLE"],
        &rows,
    )];
    lines.push(String::new());
    lines.extend(args.success.iter().map(|p| falls_below(p, &args.target)));
    lines.push(
        "Replaced: what fails is made again before any user can see it, so many instances of a fleet at most; a fleet \
         of which more fail is thrown away, and the old release has served all the time."
            .into(),
    );
    lines.join("\n")
}

fn row(p: &Chance, servers: u64, retries: u64) -> [String; 6] {
    [
        p.to_string(),
        servers.to_string(),
        percent(p, &p.in_place(servers, DIGITS)),
        p.left_between(servers, DIGITS).plain(),
        format!("up to {retries}"),
        percent(p, &p.not_replaced(servers, retries, DIGITS)),
    ]
}

/// What is not certain is not rounded to what is.
fn percent(p: &Chance, digits: &Digits) -> String {
    match digits.percent() {
        all if all == "100" && !p.is_certain() => "over 99.99999999 %".into(),
        other => format!("{other} %"),
    }
}

fn falls_below(p: &Chance, target: &Chance) -> String {
    let whole = format!("less likely than {target} to be whole");
    match p.falls_below(target) {
        Some(1) => format!("At {p} each, even one server upgraded in place is {whole}."),
        Some(servers) => {
            format!("At {p} each, a fleet upgraded in place is {whole} from {servers} servers on.")
        }
        None if p.is_certain() => format!("At {p} each, a fleet upgraded in place is never {whole}."),
        None => format!("At {p} each, a fleet upgraded in place is {whole} only beyond 10^15 servers."),
    }
}
