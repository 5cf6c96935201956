//! Scenario files: commands after `>`, what must happen below them. They are read by people who know no Rust.

use kiln_control::{Precedence, Request};
use kiln_model::{Canary, Generation, Hook, Millis, OperationKind, Release, SchemaRange, Share, Terms};

use super::{DiskState, Sim, release};

/// Plays a scenario and returns the file as it should read: its comments and commands as they are, below each
/// command what happened.
///
/// # Panics
/// If a line is no command.
pub fn play(text: &str) -> String {
    let mut sim = Sim::default();
    let mut out = String::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            out.push_str(&format!("> {command}\n"));
            perform(&mut sim, command);
            for happened in sim.happened() {
                out.push_str(&format!("  {happened}\n"));
            }
        } else if line.starts_with('#') || line.is_empty() {
            out.push_str(&format!("{line}\n"));
        }
    }
    out
}

/// `NAME`, or `NAME:OLDEST-NEWEST` for one that works with these versions of the schema only.
fn named(name: &str) -> Release {
    let Some((name, range)) = name.split_once(':') else { return release(name, 3) };
    let (oldest, newest) = range.split_once('-').expect("two versions");
    let version = |text: &str| text.parse().expect("a version");
    Release {
        schema: Some(SchemaRange { oldest: version(oldest), newest: version(newest) }),
        ..release(name, 3)
    }
}

/// The release called `name`, with hooks: `before:COMMAND` or `after:COMMAND`, each at most a minute.
fn hooked(name: &str, words: &[&str]) -> Release {
    let mut release = named(name);
    for word in words {
        let (moment, command) = word.split_once(':').expect("before:COMMAND or after:COMMAND");
        let hook = Hook { run: vec![format!("/bin/{command}")], timeout: Millis(60_000) };
        let hooks = &mut release.services.values_mut().next().expect("one").hooks;
        if moment == "before" { hooks.before.push(hook) } else { hooks.after.push(hook) }
    }
    release
}

/// One of the other app, which is reached by a name of its own.
fn of_other(name: &str) -> Release {
    let mut release = Release { app: Sim::other_app(), ..named(name) };
    for route in release.routes.values_mut() {
        route.host = Some("other.example.com".parse().expect("a name"));
    }
    release
}

/// One that takes over in steps, each of 10 to 60 seconds.
fn canary(name: &str, shares: &[&str]) -> Release {
    let terms =
        Terms { hold: Millis(10_000), within: Millis(60_000), errors: Share(100), slower: Share(5_000) };
    let shares = shares.iter().map(|share| share.parse().expect("a share")).collect();
    Release { canary: Some(Canary { shares, terms, preview: false }), ..named(name) }
}

fn perform(sim: &mut Sim, command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let serve = |name: &str, hooks: &[&str], kind, precedence| Request::Serve {
        release: Box::new(hooked(name, hooks)),
        kind,
        schema: None,
        precedence,
    };
    match words[..] {
        ["deploy", name, ref hooks @ ..] => {
            sim.request(serve(name, hooks, OperationKind::Deploy, Precedence::Yields));
        }
        ["supersede", "with", name, ref hooks @ ..] => {
            sim.request(serve(name, hooks, OperationKind::Deploy, Precedence::Supersedes));
        }
        ["rollback", "to", name, "saying", schema] => {
            let (release, kind) = (Box::new(hooked(name, &[])), OperationKind::Rollback);
            let schema = Some(schema.parse().expect("a version"));
            sim.request(Request::Serve { release, kind, schema, precedence: Precedence::Yields });
        }
        ["rollback", "to", name, ref hooks @ ..] => {
            sim.request(serve(name, hooks, OperationKind::Rollback, Precedence::Yields));
        }
        ["other", "deploys", name] => {
            let (release, kind) = (Box::new(of_other(name)), OperationKind::Deploy);
            let request = Request::Serve { release, kind, schema: None, precedence: Precedence::Yields };
            sim.request_for(Sim::other_app(), request);
        }
        ["who", "runs"] => sim.show_running(),
        ["status"] => sim.show_waiting(),
        ["follow"] => sim.follow(),
        ["start-anew"] => {
            sim.engine.start_anew();
            sim.crash();
        }
        ["exit-and-crash", instance, code] => {
            let code = code.parse().expect("an exit code");
            sim.engine.end_with_code(&instance.parse().expect("an instance"), code);
            sim.crash();
        }
        ["exit", instance, code] => {
            let code = code.parse().expect("an exit code");
            sim.engine.end_with_code(&instance.parse().expect("an instance"), code);
            sim.settle();
        }
        ["canary", name, ref shares @ ..] => {
            let (release, kind) = (Box::new(canary(name, shares)), OperationKind::Deploy);
            sim.request(Request::Serve { release, kind, schema: None, precedence: Precedence::Yields });
        }
        ["answers", generation, requests, failed, millis] => {
            let number = |text: &str| text.parse().expect("a number");
            sim.edge.answer(Generation(number(generation)), number(requests), number(failed), number(millis));
            sim.settle();
        }
        ["down"] => sim.request(Request::Down { drain: Millis(5_000) }),
        ["cancel"] => sim.cancel(),
        ["pause", wait] => sim.pause(Some(wait.parse().expect("a duration"))),
        ["resume"] => sim.pause(None),
        ["crash"] => sim.crash(),
        ["wait", span] => sim.wait(span.parse().expect("a duration")),
        ["sick", prefix] => {
            sim.health.make_sick(prefix);
            sim.settle();
        }
        ["well", prefix] => {
            sim.health.make_well(prefix);
            sim.settle();
        }
        ["kill", instance] => {
            sim.engine.end_with_signal(&instance.parse().expect("an instance"), 9);
            sim.settle();
        }
        ["touch", instance] => {
            sim.touch(&instance.parse().expect("an instance"), "sh");
        }
        ["let-alone", instance] => {
            sim.let_alone(&instance.parse().expect("an instance"));
        }
        ["connections", instance, count] => {
            let instance = instance.parse().expect("an instance");
            sim.engine.set_connections(&instance, count.parse().expect("a number"));
            sim.settle();
        }
        ["kill-newest", prefix, times] => {
            for _ in 0..times.parse().expect("a number") {
                let newest = sim
                    .core()
                    .instances()
                    .into_iter()
                    .map(|i| i.id)
                    .rfind(|id| id.as_str().starts_with(prefix));
                let Some(newest) = newest else { break };
                sim.engine.end_with_signal(&newest, 9);
                sim.settle();
            }
        }
        ["in-flight", generation, count] => {
            let generation = Generation(generation.parse().expect("a generation"));
            sim.edge.set_in_flight(generation, count.parse().expect("a number"));
            sim.settle();
        }
        ["disk", state @ ("writes" | "full" | "broken")] => {
            sim.history.set_disk(match state {
                "full" => DiskState::Full,
                "broken" => DiskState::Broken,
                _ => DiskState::Writes,
            });
            sim.settle();
        }
        ["edge", state @ ("down" | "up")] => {
            sim.edge.set_down(state == "down");
            sim.settle();
        }
        ["port", state @ ("taken" | "free")] => {
            sim.edge.set_lack((state == "taken").then_some("0.0.0.0:8443 is in use by another program"));
            sim.settle();
        }
        _ => panic!("`{command}` is no command of a scenario"),
    }
}
