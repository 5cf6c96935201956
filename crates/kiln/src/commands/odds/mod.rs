//! `kiln odds`

mod plot;

use std::path::PathBuf;

use clap::Args;
use kiln_model::odds::Chance;
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
/// Upgraded in place, a fleet comes out whole with p^N. Replaced, an instance that fails is thrown away and made
/// again, up to a number of times, before any user can see it. All digits shown are right.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Odds {
    /// Chances that one server comes out right, as 99.9%, 0.999 or 999/1000
    #[arg(long, value_name = "CHANCE", value_delimiter = ',', default_value = "99.99%")]
    success: Vec<Chance>,
    /// Sizes of fleets
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,10,50,100,500,1000",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    servers: Vec<u64>,
    /// How often an instance that failed is made again
    #[arg(long, value_name = "N", default_value_t = 3)]
    retries: u8,
    /// The chance that is wanted: from how many servers on an upgrade in place falls below it
    #[arg(long, value_name = "CHANCE", default_value = "99%")]
    target: Chance,
    /// Writes a plot to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(crate) fn run(args: &Odds, context: &Context) -> Result<(), Failure> {
    if let Some(file) = &args.svg {
        let picture = plot::svg(&args.success, &args.servers, args.retries);
        std::fs::write(file, picture).map_err(|e| {
            Failure::new(ExitCode::Usage, format!("could not write {}", file.display()))
                .because(e.to_string())
        })?;
    }
    let rows = args.success.iter().flat_map(|p| args.servers.iter().map(move |n| (p, *n)));
    let documents: Vec<_> = rows.map(|(p, n)| document(args, p, n)).collect();
    context.output.result(&documents, || words_for(args))
}

/// One fleet, for programs: chances as numbers from 0 to 1 with twelve significant digits.
fn document(args: &Odds, p: &Chance, servers: u64) -> serde_json::Value {
    let number = |digits: kiln_model::odds::Digits| digits.about();
    serde_json::json!({
        "success": p.about(),
        "servers": servers,
        "in_place": number(p.in_place(servers, DIGITS_JSON)),
        "between_states": number(p.left_between(servers, DIGITS_JSON)),
        "replace": number(p.replaced(servers, args.retries, DIGITS_JSON)),
        "replace_fails": number(p.not_replaced(servers, args.retries, DIGITS_JSON)),
        "retries": args.retries,
        "target": args.target.about(),
        "falls_below_at": p.falls_below(&args.target),
    })
}

fn words_for(args: &Odds) -> String {
    let pairs = args.success.iter().flat_map(|p| args.servers.iter().map(move |n| (p, *n)));
    let rows: Vec<[String; 5]> = pairs.map(|(p, n)| row(p, n, args.retries)).collect();
    let mut lines = vec![table(
        ["EACH SUCCEEDS", "SERVERS", "IN PLACE: WHOLE", "LEFT BETWEEN", "REPLACED: NOT WHOLE"],
        &rows,
    )];
    lines.push(String::new());
    lines.extend(args.success.iter().map(|p| falls_below(p, &args.target)));
    lines.push(format!(
        "Replaced: an instance that fails is made again, up to {}, before any user can see it; a fleet that is not \
         whole then is thrown away, and the old release has served all the time.",
        crate::words::count(u64::from(args.retries), "time")
    ));
    lines.join("\n")
}

fn row(p: &Chance, servers: u64, retries: u8) -> [String; 5] {
    [
        p.to_string(),
        servers.to_string(),
        format!("{} %", p.in_place(servers, DIGITS).percent()),
        p.left_between(servers, DIGITS).plain(),
        format!("{} %", p.not_replaced(servers, retries, DIGITS).percent()),
    ]
}

fn falls_below(p: &Chance, target: &Chance) -> String {
    match p.falls_below(target) {
        Some(servers) => {
            format!(
                "At {p} each, a fleet upgraded in place is less likely than {target} to be whole from {servers} servers on."
            )
        }
        None => {
            format!("At {p} each, a fleet upgraded in place is never less likely than {target} to be whole.")
        }
    }
}
