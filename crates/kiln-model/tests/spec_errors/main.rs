//! What is wrong with a bad spec, where, and what would have been right.

mod images;
mod services;

use insta::assert_snapshot;
use kiln_model::{ExitCode, Failure, Spec};

const GOOD: &str = r#"app = "hello"

[image.web]
from = "debian:bookworm"
run  = ["/usr/sbin/nginx", "-g", "daemon off;"]

[service.web]
image = "web"
port  = 8080
"#;

/// The problems of `text`, one a line, each with the text it points at.
fn problems(text: &str) -> String {
    let error = Spec::parse("kiln.toml", text).expect_err("a bad spec");
    let line = |p: &kiln_model::SpecProblem| format!("{p}\n    at |{}|", &p.source[p.span.clone()]);
    error.problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The problems of the good spec with `from` replaced by `to`.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    problems(&GOOD.replace(from, to))
}

/// The problems of the good spec with more lines at its end.
fn and(lines: &str) -> String {
    problems(&format!("{GOOD}{lines}"))
}

#[test]
fn what_is_not_toml() {
    assert_snapshot!(problems("app = \n[x\n"), @r"
        kiln.toml:1:7: string values must be quoted, expected literal string
            at ||
        kiln.toml:2:3: unclosed table, expected `]`
            at ||
        ");
    assert_snapshot!(problems("app = \"a\"\napp = \"b\"\n"), @r"
        kiln.toml:2:1: duplicate key
            at |app|
        ");
    assert_snapshot!(problems("app = \"hello"), @r#"
        kiln.toml:1:13: invalid basic string, expected `"`
            at ||
        "#);
    assert_snapshot!(problems(""), @r#"
        kiln.toml:1:1: the spec has no `app`; expected a line like `app = "hello"`
            at ||
        "#);
}

#[test]
fn keys_that_do_not_exist() {
    assert_snapshot!(with("image = \"web\"", "imgae = \"web\""), @r"
        kiln.toml:8:1: unknown key `imgae`; expected one of `capabilities`, `circuit`, `cpu`, `env`, `health`, `hooks`, `image`, `instances`, `io`, `memory`, `needs`, `pids`, `port`, `protocol` or `secrets`; did you mean `image`?
            at |imgae|
        ");
    assert_snapshot!(and("[images.api]\nfrom = \"scratch\"\n"), @r"
        kiln.toml:10:2: unknown key `images`; expected one of `app`, `deploy`, `image`, `policy`, `route`, `service`, `sources`, `store` or `tls`; did you mean `image`?
            at |images|
        ");
    assert_snapshot!(and("health = { htpp = \"/\" }\n"), @r"
        kiln.toml:10:12: unknown key `htpp`; expected one of `contains`, `exec`, `healthy_after`, `http`, `interval`, `start_timeout`, `status`, `tcp`, `timeout` or `unhealthy_after`; did you mean `http`?
            at |htpp|
        ");
    assert_snapshot!(with("from = ", "zebra = 1\nfrom = "), @r"
        kiln.toml:4:1: unknown key `zebra`; expected one of `build`, `build_network`, `check`, `dirs`, `env`, `files`, `from`, `links`, `packages`, `recommends`, `run`, `stop_grace`, `stop_signal`, `suites`, `user`, `users`, `volatile` or `workdir`
            at |zebra|
        ");
    assert_snapshot!(and("[[image.web.check]]\nfile = { path = \"/a\", size = 1 }\n"), @r"
        kiln.toml:11:23: unknown key `size`; expected one of `contains`, `mode`, `owner` or `path`
            at |size|
        ");
}

#[test]
fn keys_that_are_missing() {
    assert_snapshot!(with("port  = 8080\n", ""), @r"
        kiln.toml:7:1: `service.web` has no `port`; expected a line like `port = 8080`
            at |[service.web]|
        ");
    assert_snapshot!(with("app = \"hello\"\n", ""), @r#"
        kiln.toml:1:1: the spec has no `app`; expected a line like `app = "hello"`
            at ||
        "#);
    assert_snapshot!(and("[route.a]\nhost = \"example.com\"\n"), @r#"
        kiln.toml:10:1: `route.a` has no `service`; expected a line like `service = "web"`
            at |[route.a]|
        "#);
    assert_snapshot!(with("run ", "files = [{ src = \"a\" }]\nrun "), @r#"
        kiln.toml:5:10: `image.web.files[0]` has no `dst`; expected a line like `dst = "/srv/www"`
            at |{ src = "a" }|
        "#);
}

#[test]
fn values_of_the_wrong_type() {
    assert_snapshot!(with("8080", "\"8080\""), @r#"
        kiln.toml:9:9: `service.web.port` is a string; expected a whole number like `8080`
            at |"8080"|
        "#);
    assert_snapshot!(with("8080", "80800"), @r"
        kiln.toml:9:9: `service.web.port` is out of range; expected 0 to 65535
            at |80800|
        ");
    assert_snapshot!(with("8080", "-1"), @r"
        kiln.toml:9:9: `service.web.port` is out of range; expected 0 to 65535
            at |-1|
        ");
    assert_snapshot!(and("memory = 64\n"), @r#"
        kiln.toml:10:10: `service.web.memory` is an integer; expected a string like `"64MiB"`
            at |64|
        "#);
    assert_snapshot!(and("env = { PORT = 8080 }\n"), @r"
        kiln.toml:10:16: `service.web.env.PORT` is an integer; expected a string
            at |8080|
        ");
    assert_snapshot!(and("instances = 2.5\n"), @r"
        kiln.toml:10:13: `service.web.instances` is a float; expected a whole number like `4`
            at |2.5|
        ");
    assert_snapshot!(with("[\"/usr/sbin/nginx\", \"-g\", \"daemon off;\"]", "\"/usr/sbin/nginx -g\""), @r#"
        kiln.toml:5:8: `image.web.run` is a string; expected a list like `["/usr/sbin/nginx","-g","daemon off;"]`
            at |"/usr/sbin/nginx -g"|
        "#);
    assert_snapshot!(with("run ", "volatile = [1]\nrun "), @r#"
        kiln.toml:5:13: `image.web.volatile[0]` is an integer; expected a string like `"/var/cache/app"` or a table
            at |1|
        "#);
    assert_snapshot!(and("[deploy]\nstrategy = true\n"), @r#"
        kiln.toml:11:12: `deploy.strategy` is a boolean; expected a string like `"blue-green"` or a table
            at |true|
        "#);
    assert_snapshot!(with("run ", "recommends = \"yes\"\nrun "), @r#"
        kiln.toml:5:14: `image.web.recommends` is a string; expected true or false
            at |"yes"|
        "#);
}

#[test]
fn amounts_and_names_that_are_none() {
    assert_snapshot!(and("memory = \"64mb\"\n"), @r#"
        kiln.toml:10:10: `64mb` is not a size like "64MiB" (B, KiB, MiB, GiB)
            at |"64mb"|
        "#);
    assert_snapshot!(and("memory = \"64KiB\"\ncpu = 0\npids = 0\ninstances = 0\n"), @r#"
        kiln.toml:10:10: nothing runs in 64KiB of memory; expected 1MiB or more
            at |"64KiB"|
        kiln.toml:11:7: `0` is no share of CPUs; expected 0.01 to 1024, where 1.0 is one CPU
            at |0|
        kiln.toml:12:8: `service.web.pids` is 0; expected 1 or more
            at |0|
        kiln.toml:13:13: `service.web.instances` is 0; expected 1 or more
            at |0|
        "#);
    assert_snapshot!(and("pids = -1\ninstances = 5000000000\n"), @r#"
        kiln.toml:10:8: `service.web.pids` is out of range; expected 1 to 4294967295
            at |-1|
        kiln.toml:11:13: `service.web.instances` is out of range; expected 1 to 4294967295
            at |5000000000|
        "#);
    assert_snapshot!(and("health = { interval = \"0ms\", timeout = \"1 s\" }\n"), @r#"
        kiln.toml:10:23: `service.web.health.interval` is too short; expected 10ms or more
            at |"0ms"|
        kiln.toml:10:40: `1 s` is not a duration like "30s" (ms, s, m, h)
            at |"1 s"|
        "#);
    assert_snapshot!(with("\"hello\"", "\"Hello World\""), @r#"
        kiln.toml:1:7: `Hello World` is not a valid app name: expected 1 to 20 of a-z, 0-9 and -, starting with a letter and not ending with -
            at |"Hello World"|
        "#);
    assert_snapshot!(with("[service.web]", "[service.Web_1]"), @r"
        kiln.toml:7:10: `Web_1` is not a valid service name: expected 1 to 20 of a-z, 0-9 and -, starting with a letter and not ending with -
            at |Web_1|
        ");
    assert_snapshot!(with("8080", "0"), @r"
        kiln.toml:9:9: nothing can listen on port 0; expected 1 to 65535
            at |0|
        ");
    assert_snapshot!(and("instances = 100000\n"), @r"
        kiln.toml:10:13: 100000 instances are more than one host carries; expected 1 to 10000
            at |100000|
        ");
}

#[test]
fn references_that_lead_nowhere() {
    assert_snapshot!(with("image = \"web\"", "image = \"wbe\""), @r#"
        kiln.toml:8:9: there is no image `wbe`; expected `web`; did you mean `web`?
            at |"wbe"|
        "#);
    assert_snapshot!(and("[route.all]\nservice = \"frontend\"\n"), @r#"
        kiln.toml:11:11: there is no service `frontend`; expected `web`
            at |"frontend"|
        "#);
    assert_snapshot!(and("needs = [\"dab\"]\n[store.db]\naddress = \"10.0.0.5:5432\"\n"), @r#"
        kiln.toml:10:10: there is no store or service `dab`; expected `db`; did you mean `db`?
            at |"dab"|
        "#);
    assert_snapshot!(and("needs = [\"dab\"]\n"), @r#"
        kiln.toml:10:10: there is no store or service `dab`; expected a section `[store.dab]` or `[service.dab]`
            at |"dab"|
        "#);
    assert_snapshot!(and("needs = [\"web\", \"db\"]\n[store.db]\naddress = \"db.example.com\"\n"), @r#"
        kiln.toml:10:10: a service reaches itself anyway, at 127.0.0.1
            at |"web"|
        kiln.toml:12:11: `db.example.com` is not the address of a store; expected a host and a port, like `10.0.0.5:5432`, `db.example.com:5432` or `localhost:5432`
            at |"db.example.com"|
        "#);
    assert_snapshot!(and("needs = [\"db\"]\n[store.db]\naddress = \"10.0.0.5:8080\"\n[store.web]\naddress = \"10.0.0.5:1\"\n"), @r#"
        kiln.toml:10:10: `db` is reached on port 8080, which is the service's own; expected another port for one of them
            at |"db"|
        kiln.toml:13:8: `web` is a service, too: whoever needs it could mean either; expected another name
            at |web|
        "#);
    assert_snapshot!(problems("app = \"a\"\n[service.web]\nimage = \"web\"\nport = 1\n"), @r#"
        kiln.toml:3:9: there is no image `web`; expected a section `[image.web]`
            at |"web"|
        "#);
}

#[test]
fn checks_that_ask_nothing_or_too_much() {
    assert_snapshot!(and("[[image.web.check]]\ntimeout = \"1s\"\n"), @r"
        kiln.toml:10:1: a check asks one thing; expected exactly one of `run`, `http`, `port`, `file`, `package`
            at |[[image.web.check]]|
        ");
    assert_snapshot!(and("[[image.web.check]]\nport = 80\nrun = [\"/x\"]\n"), @r"
        kiln.toml:10:1: a check asks one thing; expected exactly one of `run`, `http`, `port`, `file`, `package`
            at |[[image.web.check]]|
        ");
    assert_snapshot!(and("[[image.web.check]]\npackage = \"a b\"\ntimeout = \"1s\"\n"), @r#"
        kiln.toml:11:11: `a b` is not the name of a package; expected a name like `nginx-light`, maybe with a version (`nginx=1.22.*`) or a suite behind it
            at |"a b"|
        kiln.toml:12:1: a `package` check reads the image and waits for nothing; expected no `timeout`
            at |timeout|
        "#);
    assert_snapshot!(and("[[image.web.check]]\nfile = { path = \"/a\", mode = \"0999\" }\n"), @r#"
        kiln.toml:11:30: `0999` is not a mode; expected octal digits like `0644`
            at |"0999"|
        "#);
    assert_snapshot!(and("[[image.web.check]]\nhttp = { path = \"index\", status = 99 }\n"), @r#"
        kiln.toml:11:17: `index` is not a path to ask for; expected a path that starts with `/`
            at |"index"|
        kiln.toml:11:35: there is no such status; expected 100 to 599
            at |99|
        "#);
    assert_snapshot!(
        and("[service.api]\nimage = \"web\"\nport = 1\n[[image.web.check]]\nhttp = { path = \"/\" }\n"), @r#"
        kiln.toml:14:8: which port is to be asked is not known: the services do not say it with one voice; expected a `port` in the check, like `port = 8080`
            at |{ path = "/" }|
        "#
    );
}

#[test]
fn health_that_cannot_be_asked() {
    assert_snapshot!(and("health = { http = \"/\", tcp = true }\n"), @r#"
        kiln.toml:10:10: instances are asked in one way; expected either `http`, `tcp` or `exec`
            at |{ http = "/", tcp = true }|
        "#);
    assert_snapshot!(and("health = { status = 200 }\n"), @r#"
        kiln.toml:10:12: `status` is asked of an HTTP answer, and there is none; expected `http = "/"` beside it
            at |status|
        "#);
    assert_snapshot!(and("health = { tcp = false }\n"), @r#"
        kiln.toml:10:18: no way is left to ask; expected `tcp = true`, `http = "/"` or `exec = ["…"]`
            at |false|
        "#);
}

#[test]
fn routes_that_take_the_same_requests() {
    assert_snapshot!(and("[route.a]\nservice = \"web\"\n[route.b]\npath = \"/\"\nservice = \"web\"\n"), @r"
        kiln.toml:12:1: route `b` takes the same requests as `a`; expected another host or path
            at |[route.b]|
        ");
    assert_snapshot!(and("[route.a]\nservice = \"web\"\nhost = \"http://a\"\npath = \"x\"\n"), @r#"
        kiln.toml:12:8: `http://a` is not a host: expected a name like `www.example.com` or `*.example.com`
            at |"http://a"|
        kiln.toml:13:8: `x` is not the beginning of a path; expected a path that starts with `/`, without `?` and `#`
            at |"x"|
        "#);
}

#[test]
fn what_is_not_there_is_refused() {
    assert_snapshot!(and("[deploy]\nstrategy = \"rolling\"\n"), @r#"
        kiln.toml:11:12: there is no strategy `rolling`; expected `blue-green`
            at |"rolling"|
        "#);
    assert_snapshot!(and("[sources.debian]\nmirror = \"ftp://mirror\"\n"), @r#"
        kiln.toml:11:10: `ftp://mirror` is not the address of a mirror; expected an address like `https://mirror.example.com/debian` (http or https)
            at |"ftp://mirror"|
        "#);
}

#[test]
fn canaries() {
    assert_snapshot!(and("[deploy]\nstrategy = { canary = [\"5%\", \"5%\", \"100%\", \"x\"] }\n"), @r#"
        kiln.toml:11:30: 5% is not more than the step before; expected growing shares
            at |"5%"|
        kiln.toml:11:36: 100% of the users are no canary; expected less than 100%; the last step is followed by the switch
            at |"100%"|
        kiln.toml:11:44: `x` is not a share like "5%" or "0.25%"
            at |"x"|
        "#);
    assert_snapshot!(and("[deploy]\nstrategy = { canary = [], hold = \"2m\", within = \"1m\", errors = \"1\" }\n"), @r#"
        kiln.toml:11:23: a canary of 0 steps; expected 1 to 100 shares, like `["5%", "25%"]`
            at |[]|
        kiln.toml:11:49: `within` is 1m and `hold` is 2m; expected no less time than a step takes at least
            at |"1m"|
        kiln.toml:11:64: `1` is not a share like "5%" or "0.25%"
            at |"1"|
        "#);
}

#[test]
fn everything_wrong_is_told_at_once_and_in_the_order_of_the_file() {
    assert_snapshot!(problems("ap = 1\n[service.web]\nimage = 1\nport = \"x\"\n[deploy]\ndrian = \"1s\"\n"), @r#"
        kiln.toml:1:1: unknown key `ap`; expected one of `app`, `deploy`, `image`, `policy`, `route`, `service`, `sources`, `store` or `tls`; did you mean `app`?
            at |ap|
        kiln.toml:3:9: `service.web.image` is an integer; expected a string like `"web"`
            at |1|
        kiln.toml:4:8: `service.web.port` is a string; expected a whole number like `8080`
            at |"x"|
        kiln.toml:6:1: unknown key `drian`; expected one of `drain`, `keep_warm`, `schema` or `strategy`; did you mean `drain`?
            at |drian|
        "#);
}

#[test]
fn columns_count_characters_and_lines_may_end_as_on_windows() {
    assert_snapshot!(problems("app = \"a\"\r\n\"größe\" = 1\r\n"), @r#"
        kiln.toml:2:1: unknown key `größe`; expected one of `app`, `deploy`, `image`, `policy`, `route`, `service`, `sources`, `store` or `tls`
            at |"größe"|
        "#);
    assert_snapshot!(problems("\u{feff}app = 1"), @r#"
        kiln.toml:1:8: `app` is an integer; expected a string like `"hello"`
            at |1|
        "#);
}

#[test]
fn a_bad_spec_is_a_failure_with_exit_code_3_and_its_places() {
    let failure: Failure = Spec::parse("dir/kiln.toml", "app = 1").unwrap_err().into();
    assert_eq!(failure.code, ExitCode::Spec);
    assert_eq!(failure.message, "`dir/kiln.toml` is not a valid spec");
    assert_eq!((failure.problems[0].line, failure.problems[0].column), (1, 7));
    let json = serde_json::to_string(&failure).unwrap();
    assert_eq!(serde_json::from_str::<Failure>(&json).unwrap(), failure);
}

#[test]
fn secrets_that_cannot_be() {
    let secrets = |list: &str| and(&format!("env = {{ TAKEN = \"1\" }}\nsecrets = {list}\n"));
    assert_snapshot!(secrets(r#"["API KEY", "A", "A"]"#), @r#"
        kiln.toml:11:12: `API KEY` is not a valid secret name: expected 1 to 64 of A-Z, a-z, 0-9, _ and -, starting with a letter or _
            at |"API KEY"|
        kiln.toml:11:28: secret `A` is named twice
            at |"A"|
        "#);
    assert_snapshot!(secrets(r#"[{ name = "A", env = "TAKEN" }, { name = "B", env = "9X" }, 7]"#), @r#"
        kiln.toml:11:71: `service.web.secrets[2]` is an integer; expected a string like `"API_KEY"` or a table
            at |7|
        "#);
    assert_snapshot!(secrets(r#"[{ name = "A", env = "TAKEN" }, { name = "B", env = "9X" }]"#), @r#"
        kiln.toml:11:32: the environment variable `TAKEN` is set twice
            at |"TAKEN"|
        kiln.toml:11:63: `9X` is not the name of an environment variable; expected A-Z, a-z, 0-9 and _, not starting with a digit
            at |"9X"|
        "#);
    assert_snapshot!(secrets(r#"[{ name = "A", evn = "X" }]"#), @r#"
        kiln.toml:11:26: unknown key `evn`; expected one of `env` or `name`; did you mean `env`?
            at |evn|
        "#);
}

#[test]
fn services_that_need_each_other_in_a_circle() {
    let found = with(
        "port  = 8080\n",
        "port  = 8080\nneeds = [\"api\"]\n\n[service.api]\nimage = \"web\"\nport = 8081\nneeds = [\"web\"]\n",
    );
    assert!(found.contains("`api` -> `web` need each other in a circle"), "{found}");
    assert!(found.contains("at |[\"web\"]|"), "{found}");
}

#[test]
fn a_schema_that_ends_before_it_begins() {
    let found = and("[deploy]\nschema = { oldest = 3, newest = 2 }\n");
    assert!(found.contains("`oldest` is 3 and `newest` is 2"), "{found}");
}
