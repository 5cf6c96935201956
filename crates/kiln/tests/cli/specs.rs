//! Specs that are not there, or wrong: told without troubling a host.

use insta::assert_snapshot;

use crate::harness::{Place, SPEC};

#[test]
fn no_spec_here_or_above() {
    let place = Place::new();
    assert_snapshot!(place.kiln(&["deploy"]), @r"
        status: 2
        --- stderr
        error: there is no kiln.toml in `[DIR]` or above it
        hint: name the app's directory, or write a spec there: `kiln schema` says what goes in
        ");
    assert_snapshot!(place.kiln(&["plan", "nowhere"]), @r"
        status: 2
        --- stderr
        error: there is no directory `nowhere`
          because: No such file or directory (os error 2)
        ");
}

#[test]
fn a_bad_spec_is_shown_with_carets_and_what_was_expected() {
    let place = Place::new();
    place.write("kiln.toml", &SPEC.replace("image = \"web\"", "imgae = \"web\"").replace("8080", "\"8080\""));
    assert_snapshot!(place.kiln(&["deploy"]), @r#"
        status: 3
        --- stderr
        error: `kiln.toml` is not a valid spec

        unknown key `imgae`
         --> kiln.toml:8:1
          |
        8 | imgae = "web"
          | ^^^^^ expected one of `capabilities`, `circuit`, `cpu`, `env`, `health`, `hooks`, `image`, `instances`, `io`, `memory`, `needs`, `pids`, `port`, `protocol` or `secrets`
          |
          = help: did you mean `image`?

        `service.web.port` is a string
         --> kiln.toml:9:8
          |
        9 | port = "8080"
          |        ^^^^^^ expected a whole number like `8080`
        "#);
}

#[test]
fn a_reference_that_leads_nowhere() {
    let place = Place::new();
    let text = SPEC.replace("image = \"web\"", "image = \"wbe\"");
    place.write("app/kiln.toml", &text);
    assert_snapshot!(place.kiln(&["deploy", "app"]), @r#"
        status: 3
        --- stderr
        error: `app/kiln.toml` is not a valid spec

        there is no image `wbe`
         --> app/kiln.toml:8:9
          |
        8 | image = "wbe"
          |         ^^^^^ expected `web`
          |
          = help: did you mean `web`?
        "#);
}

#[test]
fn an_empty_spec_and_one_that_is_no_toml() {
    let place = Place::new();
    place.write("kiln.toml", "");
    assert_snapshot!(place.kiln(&["plan"]), @r#"
        status: 3
        --- stderr
        error: `kiln.toml` is not a valid spec

        the spec has no `app`
         --> kiln.toml:1:1
          |
        1 |
          | ^ expected a line like `app = "hello"`
        "#);
    place.write("kiln.toml", "app = \"hello\"\n[image.web\n");
    assert_snapshot!(place.kiln(&["plan"]), @r"
        status: 3
        --- stderr
        error: `kiln.toml` is not a valid spec

        unclosed table, expected `]`
         --> kiln.toml:2:11
          |
        2 | [image.web
          |           ^
        ");
}

#[test]
fn programs_get_the_places_as_data() {
    let place = Place::new();
    place.write("kiln.toml", "app = 1\n");
    let output = place.process(&["plan", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let problem = &document["failure"]["problems"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&1.into(), &7.into()));
    assert_eq!(document["failure"]["code"], "spec");
}

#[test]
fn the_spec_is_found_from_below() {
    let place = Place::new();
    place.write("kiln.toml", SPEC);
    place.write("site/deep/index.html", "");
    // Found and right: the next thing that is missing is a host.
    assert_snapshot!(place.kiln(&["deploy", "site/deep"]), @r"
        status: 9
        --- stderr
        error: no Kiln host is running here
        hint: start one with `kiln up` (this app, in the foreground) or `kiln serve`
        ");
}
