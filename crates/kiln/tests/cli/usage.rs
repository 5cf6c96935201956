//! Help, wrong usage, and what needs nobody else.

use std::io::{BufRead, BufReader};

use insta::assert_snapshot;

use crate::harness::{Place, SPEC};

#[test]
fn without_a_command_the_help_is_shown_and_it_is_wrong_usage() {
    let output = Place::new().process(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Usage: kiln"));
}

#[test]
fn help_and_version_are_asked_for_and_given() {
    let place = Place::new();
    let help = place.kiln(&["--help"]);
    assert!(help.starts_with("status: 0\n--- stdout\nImmutable infrastructure in one binary"), "{help}");
    assert!(help.contains("Exit codes:") && !help.contains("\n  keeper"), "{help}");
    assert!(place.kiln(&["--version"]).contains(concat!("kiln ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn what_cannot_be_typed() {
    let place = Place::new();
    assert_snapshot!(place.kiln(&["deply"]), @r"
        status: 2
        --- stderr
        error: unrecognized subcommand 'deply'

          tip: a similar subcommand exists: 'deploy'

        Usage: kiln [OPTIONS] <COMMAND>

        For more information, try '--help'.
        ");
    assert_snapshot!(place.kiln(&["status", "--wach"]), @r"
        status: 2
        --- stderr
        error: unexpected argument '--wach' found

          tip: a similar argument exists: '--watch'

        Usage: kiln status --watch

        For more information, try '--help'.
        ");
    assert_snapshot!(place.kiln(&["status", "--app", "Not A Name"]), @r"
        status: 2
        --- stderr
        error: invalid value 'Not A Name' for '--app <NAME>': `Not A Name` is not a valid app name: expected 1 to 20 of a-z, 0-9 and -, starting with a letter and not ending with -

        For more information, try '--help'.
        ");
}

#[test]
fn an_export_is_a_file_and_no_stream() {
    assert_snapshot!(Place::new().kiln(&["export", "r-5d0c", "-o", "-"]), @r"
        status: 2
        --- stderr
        error: an export is a file, there whole or not at all; `-` is none
        hint: give -o FILE, and send that; a file of that name is `./-`
        ");
}

#[test]
fn what_cannot_be_typed_is_told_to_programs_that_asked_for_json() {
    for arguments in
        [&["deply", "--json"][..], &["--json", "status", "--wach"], &["bake", "--json", "--nope"]]
    {
        let output = Place::new().process(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["failure"]["code"], "usage", "{told}");
        let message = told["failure"]["message"].as_str().unwrap();
        assert!(message.starts_with("un") && !message.contains('\n'), "{told}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(message));
    }
    let help = Place::new().process(&["--json", "--help"]).output().unwrap();
    assert!(help.status.success() && help.stdout.starts_with(b"Immutable"), "help is for people");
}

/// The exit code is that of every command that is ended so.
#[test]
fn what_is_called_off_has_not_failed() {
    let place = Place::new();
    let mirror = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sources =
        format!("\n[sources.debian]\nmirror = \"http://{}/debian\"\n", mirror.local_addr().unwrap());
    place.write("kiln.toml", &(SPEC.replace("\"scratch\"", "\"debian:bookworm\"") + &sources));
    let mut lock = place.process(&["lock", "--root", "state"]);
    let mut lock = lock.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(lock.stderr.take().unwrap()).lines().map_while(Result::ok);
    // It waits for an answer that does not come.
    let asked = mirror.accept().unwrap();
    let pid = rustix::process::Pid::from_child(&lock);
    // Once is enough, sooner or later.
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    for says in ["calling it off; Ctrl-C once more", "called off: what was finished stays"] {
        assert!(told.any(|line| line.starts_with(says)), "`{says}` is not said");
    }
    assert_eq!(lock.wait().unwrap().code(), Some(130));
    drop(asked);
}

#[test]
fn the_schema_is_a_document() {
    let output = Place::new().process(&["schema"]).output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["title"], "kiln.toml");
    assert_eq!(schema["properties"]["app"]["type"], "string");
    assert!(output.stderr.is_empty() && output.status.success());
}

#[test]
fn completions_for_every_usual_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = place.process(&["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains("rollback"), "{shell}");
    }
}

#[test]
fn what_needs_root_says_so_and_why() {
    let place = Place::new();
    place.write("kiln.toml", SPEC);
    let told = |arguments: &[&str]| place.told(&place.process_of_a_user(arguments).output().unwrap());
    assert_snapshot!(told(&["up"]), @r"
        status: 9
        --- stderr
        error: `kiln up` must run as root
          because: images are mounted, and instances get namespaces, cgroups and users of their own
        hint: run `sudo kiln up`
        ");
    for command in ["serve", "bake"] {
        assert!(
            told(&[command])
                .starts_with(&format!("status: 9\n--- stderr\nerror: `kiln {command}` must run as root"))
        );
    }
}

#[test]
fn an_address_to_listen_on_is_checked() {
    assert_snapshot!(Place::new().kiln(&["serve", "--listen", "8080"]), @r"
        status: 2
        --- stderr
        error: invalid value '8080' for '--listen <ADDR>': invalid socket address syntax

        For more information, try '--help'.
        ");
}

#[test]
fn the_odds_of_fleets() {
    let place = Place::new();
    assert_snapshot!(place.kiln(&["odds", "--success", "99%", "--servers", "1,10,1000"]), @r"
    status: 0
    --- stdout
    EACH SUCCEEDS  SERVERS  IN PLACE: WHOLE   LEFT BETWEEN  MADE AGAIN  REPLACED: NOT WHOLE
    99%            1        99 %              0.01          up to 2     0.0001 %
    99%            10       90.4382075 %      0.1           up to 4     0.00001856894284 %
    99%            1000     0.004317124741 %  10            up to 499   2.907882869e-590 %

    At 99% each, a fleet upgraded in place is less likely than 99% to be whole from 2 servers on.
    Replaced: what fails is made again before any user can see it, so many instances of a fleet at most; a fleet of which more fail is thrown away, and the old release has served all the time.
    ");
    let json = place.process(&["odds", "--success", "99.9%", "--servers", "10", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let of = |key: &str| json[0][key].as_f64().unwrap();
    assert_eq!((of("success"), of("servers"), of("retries")), (0.999, 10.0, 4.0));
    assert_eq!((of("in_place"), of("between_states"), of("replace")), (0.990044880210, 0.01, 0.999999999998));
    assert!((of("replace_fails") / 1.98703637504e-12 - 1.0).abs() < 1e-12, "{json}");
    let json = place.process(&["odds", "--retries", "0", "--servers", "10", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[0]["replace"], json[0]["in_place"]);
}

/// What is nearly certain is not told as certain, and what is nearly impossible not as impossible.
#[test]
fn odds_beyond_what_most_numbers_hold() {
    let place = Place::new();
    assert_snapshot!(place.kiln(&["odds", "--success", "99.99999999999999999%,0.01%,100%", "--servers", "1000"]), @r"
    status: 0
    --- stdout
    EACH SUCCEEDS          SERVERS  IN PLACE: WHOLE     LEFT BETWEEN  MADE AGAIN  REPLACED: NOT WHOLE
    99.99999999999999999%  1000     over 99.99999999 %  1e-16         up to 499   6.534034203e-9086 %
    0.01%                  1000     1e-3998 %           999.9         up to 499   over 99.99999999 %
    100%                   1000     100 %               0             up to 499   0 %

    At 99.99999999999999999% each, a fleet upgraded in place is less likely than 99% to be whole only beyond 10^15 servers.
    At 0.01% each, even one server upgraded in place is less likely than 99% to be whole.
    At 100% each, a fleet upgraded in place is never less likely than 99% to be whole.
    Replaced: what fails is made again before any user can see it, so many instances of a fleet at most; a fleet of which more fail is thrown away, and the old release has served all the time.
    ");
    let tiny = ["odds", "--success", "0.01%", "--servers", "1000", "--json"];
    let json = place.process(&tiny).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[0]["digits"]["in_place"], "1e-4000");
    assert_eq!(json[0]["in_place"], 0.0);
}

#[test]
fn the_odds_as_a_picture() {
    let place = Place::new();
    assert!(place.kiln(&["odds", "--success", "95%,99.99%", "--svg", "odds.svg"]).starts_with("status: 0\n"));
    let picture = std::fs::read_to_string(place.path().join("odds.svg")).unwrap();
    assert!(picture.starts_with("<svg xmlns=") && picture.ends_with("</svg>\n"));
    assert_eq!(picture.matches("<polyline").count(), 3, "two in place, one replaced");
    assert!(picture.contains("95%, in place") && !picture.contains("NaN"), "{picture}");
    assert_snapshot!(place.kiln(&["odds", "--svg", "no/such/odds.svg"]), @r"
    status: 2
    --- stderr
    error: could not write no/such/odds.svg
      because: No such file or directory (os error 2)
    ");
    assert!(place.kiln(&["odds", "--svg", "/dev/full"]).starts_with("status: 9\n"));
    assert!(place.kiln(&["odds", "--success", "101%"]).contains("`101%` is no probability"));
}

/// Exit code 0 says that all of it is there; whoever stops reading has seen enough.
#[test]
fn what_cannot_be_written_was_not_told() {
    let place = Place::new();
    let into = |file: &str, arguments: &[&str]| {
        let full = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        let output = place.process(arguments).stdout(full).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for arguments in [&["odds"][..], &["odds", "--json"], &["schema"], &["completions", "bash"]] {
        let (code, told) = into("/dev/full", arguments);
        assert_eq!(code, Some(9), "{arguments:?}: {told}");
        assert!(told.contains("could not be written to standard output"), "{told}");
        assert!(told.contains("No space left on device"), "{told}");
    }
    let (reading, writing) = rustix::pipe::pipe().unwrap();
    drop(reading);
    let output = place.process(&["odds"]).stdout(writing).output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}
