//! What is wrong with an image of a bad spec.

use insta::assert_snapshot;

use crate::with;
#[test]
fn what_images_cannot_be() {
    assert_snapshot!(with("debian:bookworm", "debain:bookworm"), @r#"
        kiln.toml:4:8: an image cannot start from `debain:bookworm`; expected `debian:SUITE` like `debian:bookworm`, `oci:` and a path or reference, `image:` and the name of a handmade image, or `scratch`; did you mean `debian`?
            at |"debain:bookworm"|
        "#);
    assert_snapshot!(with("debian:bookworm", "debian"), @r#"
        kiln.toml:4:8: an image cannot start from `debian`; expected `debian:SUITE` like `debian:bookworm`, `oci:` and a path or reference, `image:` and the name of a handmade image, or `scratch`
            at |"debian"|
        "#);
    assert_snapshot!(with("debian:bookworm\"", "scratch\"\npackages = [\"nginx\"]"), @r#"
        kiln.toml:5:12: an image from `scratch` has no distribution to take packages from; expected `from = "debian:bookworm"`, or no packages
            at |["nginx"]|
        "#);
    assert_snapshot!(with("run ", "packages = [\"nginx=x1\", \"Curl\", \"curl/trixie\"]\nrun "), @r#"
        kiln.toml:5:13: `x1` is not a version; expected a version like `1.22.1-9`, or the beginning of one with `*` behind it like `1.22.*`
            at |"nginx=x1"|
        kiln.toml:5:25: `Curl` is not the name of a package; expected a name like `nginx-light`, maybe with a version (`nginx=1.22.*`) or a suite behind it
            at |"Curl"|
        kiln.toml:5:33: the image has no suite `trixie`; expected one of its own, or a line `suites = ["trixie"]`
            at |"curl/trixie"|
        "#);
    assert_snapshot!(with("run ", "suites = [\"bookworm\", { name = \"trixie\", priority = 1000 }]\nrun "), @r#"
        kiln.toml:5:11: the suite `bookworm` is named twice
            at |"bookworm"|
        kiln.toml:5:23: the priority 1000 is out of range; expected 1 to 999
            at |{ name = "trixie", priority = 1000 }|
        "#);
    assert_snapshot!(with("\"/usr/sbin/nginx\"", "\"nginx\""), @r#"
        kiln.toml:5:9: `nginx` is not an absolute path; expected the program's path in the image, like `/usr/sbin/nginx` (there is no shell to find it)
            at |"nginx"|
        "#);
    assert_snapshot!(with("[\"/usr/sbin/nginx\", \"-g\", \"daemon off;\"]", "[]"), @r"
        kiln.toml:5:8: `image.web.run` is empty; expected a program and its arguments
            at |[]|
        ");
    assert_snapshot!(with("run ", "stop_signal = \"SIGTREM\"\nrun "), @r#"
        kiln.toml:5:15: `SIGTREM` is no signal to end with; expected one of `SIGHUP`, `SIGINT`, `SIGQUIT`, `SIGKILL`, `SIGUSR1`, `SIGUSR2`, `SIGTERM`, `SIGWINCH`, `SIGPWR`; did you mean `SIGTERM`?
            at |"SIGTREM"|
        "#);
    assert_snapshot!(with("run ", "workdir = \"srv\"\nrun "), @r#"
        kiln.toml:5:11: `srv` is not an absolute path; expected an absolute path without `..`
            at |"srv"|
        "#);
    assert_snapshot!(with("run ", "volatile = [\"/\", \"/proc/x\", \"cache\"]\nrun "), @r#"
        kiln.toml:5:13: the root of an image cannot be volatile; expected a directory below it
            at |"/"|
        kiln.toml:5:18: `/proc/x` cannot be volatile: what is in `/proc` comes from the kernel
            at |"/proc/x"|
        kiln.toml:5:29: `cache` is not an absolute path; expected an absolute path without `..`
            at |"cache"|
        "#);
    assert_snapshot!(with("run ", "volatile = [{ path = \"/a\", size = \"0B\" }, { path = \"/b\", size = \"2048GiB\" }]\nrun "), @r#"
        kiln.toml:5:35: a volatile path cannot have 0B; expected from 4KiB to 1024GiB; what is written to it counts as memory of the service, too
            at |"0B"|
        kiln.toml:5:65: a volatile path cannot have 2048GiB; expected from 4KiB to 1024GiB; what is written to it counts as memory of the service, too
            at |"2048GiB"|
        "#);
}

#[test]
fn files_that_leave_the_project() {
    assert_snapshot!(with("run ", "files = [{ src = \"../x\", dst = \"/x\" }]\nrun "), @r#"
        kiln.toml:5:18: `../x` leaves the directory of the spec; expected a path inside the directory that holds the spec
            at |"../x"|
        "#);
    assert_snapshot!(with("run ", "files = [{ src = \"a/../../x\", dst = \"/x\" }]\nrun "), @r#"
        kiln.toml:5:18: `a/../../x` leaves the directory of the spec; expected a path inside the directory that holds the spec
            at |"a/../../x"|
        "#);
    assert_snapshot!(with("run ", "files = [{ src = \"/etc/passwd\", dst = \"etc\" }]\nrun "), @r#"
        kiln.toml:5:18: `/etc/passwd` is not relative to the directory of the spec; expected a path inside the directory that holds the spec
            at |"/etc/passwd"|
        kiln.toml:5:39: `etc` is not an absolute path; expected an absolute path without `..`
            at |"etc"|
        "#);
    assert_snapshot!(with("run ", "files = [{ src = \"a\", dst = \"/x/../y\" }]\nrun "), @r#"
        kiln.toml:5:29: `/x/../y` leads upwards with `..`; expected an absolute path without `..`
            at |"/x/../y"|
        "#);
}

#[test]
fn what_is_put_into_images_is_looked_at_one_by_one() {
    assert_snapshot!(with("run ", "dirs = [\"srv\", { path = \"/x\", mode = \"9\", owner = \"a:b:c\" }]\nrun "), @r#"
        kiln.toml:5:9: `srv` is not an absolute path; expected an absolute path without `..`
            at |"srv"|
        kiln.toml:5:38: `9` is not a mode; expected octal digits like `0644`
            at |"9"|
        kiln.toml:5:51: `a:b:c` is no owner; expected `user` or `user:group`, like `www-data:adm`
            at |"a:b:c"|
        "#);
    assert_snapshot!(with("run ", "user = \"65536\"\ndirs = [{ path = \"/x\", owner = \"65535:4294967296\" }]\nrun "), @r#"
        kiln.toml:5:8: no instance has a user or group 65536; expected a name, or 0 to 65535
            at |"65536"|
        kiln.toml:6:32: no instance has a user or group 4294967296; expected a name, or 0 to 65535
            at |"65535:4294967296"|
        "#);
    assert_snapshot!(with("run ", "files = [{ src = \"a\", dst = \"/sys/x/\" }]\ndirs = [\"/proc\", \"/devices\", \"/dev/shm/x\"]\nlinks = [{ path = \"/proc/self\", to = \"x\" }]\nrun "), @r#"
        kiln.toml:5:29: no instance sees `/sys/x`: what is in `/sys` comes from the kernel
            at |"/sys/x/"|
        kiln.toml:6:30: no instance sees `/dev/shm/x`: what is in `/dev` comes from the kernel
            at |"/dev/shm/x"|
        kiln.toml:7:19: no instance sees `/proc/self`: what is in `/proc` comes from the kernel
            at |"/proc/self"|
        "#);
    assert_snapshot!(with("run ", "links = [{ path = \"/\", to = \"\" }]\nrun "), @r#"
        kiln.toml:5:19: the root of an image is a directory
            at |"/"|
        kiln.toml:5:29: nothing can lead there; expected a path of 1 to 4095 bytes without a NUL byte
            at |""|
        "#);
    assert_snapshot!(with("run ", "users = [{ name = \"Web\", uid = 70000, groups = [\"a b\"], home = \"x\" }]\nrun "), @r#"
        kiln.toml:5:19: `Web` is not the name of a user or group; expected 1 to 32 of a-z, 0-9, - and _, starting with a letter or _
            at |"Web"|
        kiln.toml:5:32: an image has no such number; expected 0 to 65534
            at |70000|
        kiln.toml:5:49: `a b` is not the name of a user or group; expected 1 to 32 of a-z, 0-9, - and _, starting with a letter or _
            at |"a b"|
        kiln.toml:5:64: `x` is not an absolute path; expected an absolute path without `..`
            at |"x"|
        "#);
    assert_snapshot!(with("run ", "users = [{ name = \"a\" }, { name = \"a\", uid = 7 }]\nrun "), @r#"
        kiln.toml:5:35: the user `a` is named twice
            at |"a"|
        "#);
    assert_snapshot!(with("run ", "build = [\" \", [\"make\"], 3]\nrun "), @r#"
        kiln.toml:5:25: `image.web.build[2]` is an integer; expected a string like `"make -C /usr/src/app install"` or a list like `["/usr/bin/make","install"]`
            at |3|
        "#);
    assert_snapshot!(with("run ", "build = [\" \", [\"make\"]]\nrun "), @r#"
        kiln.toml:5:10: there is nothing to run; expected a line for /bin/sh
            at |" "|
        kiln.toml:5:16: `make` is not an absolute path; expected the program's path in the image, like `/usr/sbin/nginx` (there is no shell to find it)
            at |"make"|
        "#);
    assert_snapshot!(with("run  = [\"/usr/sbin/nginx\", \"-g\", \"daemon off;\"]\n", ""), @r#"
        kiln.toml:3:1: `image.web` has no `run`; expected a line like `run = ["/usr/sbin/nginx","-g","daemon off;"]`
            at |[image.web]|
        "#);
}

#[test]
fn an_oci_image_is_named_by_a_path_or_a_reference_and_brings_its_packages() {
    assert_snapshot!(with("debian:bookworm", "oci:registry.example.com/Team"), @r#"
        kiln.toml:4:8: `registry.example.com/Team` names no OCI image: a repository is lower-case words of a-z and 0-9 with `.`, `_`, `-` within and `/` between them
            at |"oci:registry.example.com/Team"|
        "#);
    assert_snapshot!(with("debian:bookworm\"", "oci:./base\"\npackages = [\"nginx\"]"), @r#"
        kiln.toml:5:12: an OCI image brings what it has: Kiln does not know how it was put together, and adds no packages; expected no packages here (`build` can run the image's own package manager on files of the project), or `from = "debian:bookworm"`
            at |["nginx"]|
        "#);
}
