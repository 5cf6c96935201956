//! What is wrong with how an app is to come up and take over.

use kiln_model::Spec;

/// The problems of a good spec with more lines at its end, where `[service.web]` is still open.
fn and(lines: &str) -> String {
    let good = "app = \"hello\"\n[image.web]\nfrom = \"debian:bookworm\"\nrun = [\"/usr/sbin/nginx\"]\n\
                [service.web]\nimage = \"web\"\nport = 8080\n";
    let text = format!("{good}{lines}");
    let error = Spec::parse("kiln.toml", &text).expect_err("a bad spec");
    let line = |p: &kiln_model::SpecProblem| format!("{p}\n    at |{}|", &p.source[p.span.clone()]);
    error.problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn services_that_need_each_other_in_a_circle() {
    let found = and("needs = [\"api\"]\n\n[service.api]\nimage = \"web\"\nport = 8081\nneeds = [\"web\"]\n");
    assert!(found.contains("`api` -> `web` need each other in a circle"), "{found}");
    assert!(found.contains("at |[\"web\"]|"), "{found}");
}

#[test]
fn hooks_that_cannot_be_run() {
    let found = and("hooks = { before = [{ run = [] }, { run = [\"migrate\"], timeout = \"1ms\" }] }\n");
    assert!(found.contains("`service.web.hooks.before[0].run` is empty"), "{found}");
    assert!(found.contains("`migrate` is not an absolute path"), "{found}");
    assert!(found.contains("`service.web.hooks.before[1].timeout` is too short"), "{found}");
    let many = vec!["{ run = [\"/bin/x\"] }"; 17].join(", ");
    let found = and(&format!("hooks = {{ after = [{many}] }}\n"));
    assert!(found.contains("17 hooks are more than a service can have"), "{found}");
    let found = and("hooks = { befor = [] }\n");
    assert!(found.contains("befor"), "{found}");
}

#[test]
fn a_schema_that_ends_before_it_begins() {
    let found = and("[deploy]\nschema = { oldest = 3, newest = 2 }\n");
    assert!(found.contains("`oldest` is 3 and `newest` is 2"), "{found}");
}

#[test]
fn a_route_that_bounds_nothing_or_what_it_does_not_know() {
    let web = "[route.web]\nservice = \"web\"\n";
    let found = and(&format!("{web}max_body = \"10M\"\ntimeout = \"20ms\"\n"));
    assert!(found.contains("`10M` is not a size like \"64MiB\""), "{found}");
    assert!(found.contains("`route.web.timeout` is too short; expected 1s or more"), "{found}");
    let found = and("[route.db]\nservice = \"web\"\ntcp = 5432\nmax_body = \"1MiB\"\ntimeout = \"5s\"\n");
    for key in ["max_body", "timeout"] {
        assert!(
            found.contains(&format!("`{key}` is asked of HTTP requests, and a `tcp` route has none")),
            "{found}"
        );
    }
}
