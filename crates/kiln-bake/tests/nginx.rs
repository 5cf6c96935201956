//! An image that works: nginx, from the host's mirror, with a page of our own.

mod common;
mod documents;

use common::{baked, file, inside, locked, order, printed, write};
use kiln_model::{ByteSize, Volatile};
use kiln_store::Store;

const CONF: &str = "pid /run/nginx.pid; error_log stderr; events {} http { access_log off; server { listen 8080; root /srv/www; } }\n";

#[test]
fn nginx_is_all_there() {
    let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(state.path()).unwrap();
    write(project.path(), "site/index.html", "<h1>hello</h1>");
    write(project.path(), "site/deep/a.html", "a");
    write(project.path(), "nginx.conf", CONF);
    let mut order = order(project.path(), &["nginx-light"]);
    order.files = vec![file("site/", "/srv/www"), file("nginx.conf", "/etc/nginx/")];
    order.run = vec!["/usr/sbin/nginx".into(), "-g".into(), "daemon off;".into()];
    order.user = Some("www-data".into());
    order.volatile = vec![Volatile::new("/var/lib/nginx", ByteSize(1 << 20))];
    let lock = locked(&order, &store);
    let first = baked(&order, &lock, &store);
    let image = store.handle(&first.record.digest).unwrap();

    // The image says what it holds and how it is run.
    assert!(!first.reused);
    assert_eq!((first.record.run.uid, first.record.run.user.as_str()), (33, "www-data"));
    assert!(first.record.packages.iter().any(|p| p.name == "nginx-light"));
    documents::assert_sbom(&store, &first.record, &lock.images[&order.image]);
    documents::assert_provenance(&store, &first.record, &lock.images[&order.image]);
    let settings = printed(&image, &["/bin/ls", "-ld", "/var/lib/nginx", "/srv/www/deep", "/etc/nginx"]);
    assert_eq!(settings.lines().count(), 3, "{settings}");

    // What the packages' own scripts make is there.
    let user = printed(&image, &["/usr/bin/getent", "passwd", "www-data"]);
    assert!(user.starts_with("www-data:") && user.contains(":33:33:"), "{user}");
    let installed = printed(&image, &["/usr/bin/dpkg", "-l"]);
    let states: Vec<_> = installed.lines().skip(5).filter(|l| !l.starts_with("ii ")).collect();
    assert!(states.is_empty(), "{states:?}");
    assert_eq!(installed.lines().count() - 5, lock.images[&order.image].packages.len());
    assert!(printed(&image, &["/sbin/ldconfig", "-p"]).contains("libc.so.6"));
    assert!(printed(&image, &["/usr/sbin/nginx", "-t"]).contains("test is successful"));
    assert!(printed(&image, &["/bin/cat", "/srv/www/index.html"]).contains("hello"));
    assert_eq!(printed(&image, &["/bin/readlink", "-f", "/usr/bin/awk"]).trim(), "/usr/bin/mawk");

    // Owners are those inside, not those the sandbox had on the host.
    let shifted =
        printed(&image, &["/usr/bin/find", "/", "-xdev", "(", "-uid", "+65535", "-o", "-gid", "+65535", ")"]);
    assert_eq!(shifted, "");
    let status = printed(
        &image,
        &["/usr/bin/stat", "-c", "%u:%g %a", "/etc/nginx/nginx.conf", "/var/lib/dpkg/status"],
    );
    assert_eq!(status, "0:0 644\n0:0 644\n");

    // Nothing of the run is left, and nothing can be written.
    for gone in
        ["/usr/sbin/policy-rc.d", "/var/log/dpkg.log", "/etc/passwd-", "/var/cache/ldconfig/aux-cache"]
    {
        assert!(!inside(&image, &["/usr/bin/test", "-e", gone]).status.success(), "{gone}");
    }
    assert!(!inside(&image, &["/usr/bin/touch", "/etc/x"]).status.success());

    // Unchanged, it is found again; with one page changed, only the merge is done again.
    let again = baked(&order, &lock, &store);
    assert!(again.reused && again.record == first.record);
    write(project.path(), "site/index.html", "<h1>hallo</h1>");
    let changed = baked(&order, &lock, &store);
    assert!(!changed.reused && changed.record.digest != first.record.digest);
    let image = store.handle(&changed.record.digest).unwrap();
    assert!(printed(&image, &["/bin/cat", "/srv/www/index.html"]).contains("hallo"));
    write(project.path(), "site/index.html", "<h1>hello</h1>");
    assert_eq!(baked(&order, &lock, &store).record.digest, first.record.digest);

    // Another store, another directory: the same bytes.
    let (elsewhere, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = Store::open(state.path()).unwrap();
    for package in &lock.images[&order.image].packages {
        let path = store.package(&package.sha256).unwrap().unwrap();
        other.put_package(&package.sha256, &mut std::fs::File::open(path).unwrap()).unwrap();
    }
    write(elsewhere.path(), "site/deep/a.html", "a");
    write(elsewhere.path(), "site/index.html", "<h1>hello</h1>");
    write(elsewhere.path(), "nginx.conf", CONF);
    order.project = elsewhere.path().into();
    // Everything is in the store: a mirror that does not exist is never asked.
    order.sources.mirror = Some("http://mirror.invalid/debian".into());
    let elsewhere = baked(&order, &lock, &other).record;
    assert_eq!(elsewhere.digest, first.record.digest);
    assert_eq!(elsewhere.documents, first.record.documents, "SBOM and provenance are the same bytes as well");
}
