//! A release in full.

use insta::assert_snapshot;
use kiln_model::{Answer, Command, Release, ReleaseAnswer, ReleaseImage, ReleaseState, Timestamp};

use crate::harness::Place;

/// A release with everything a release may have.
const FULL: &str = include_str!("../../../kiln-model/tests/fixtures/release-full.json");

#[test]
fn a_release_is_shown_with_everything_that_is_in_its_digest() {
    let place = Place::new();
    let _host = place.host("a", |command, _| {
        let Command::ReleaseShow { release, .. } = command else { panic!("{command:?}") };
        assert_eq!(release, "r-5555");
        let document = Release::decode(FULL.trim_end().as_bytes()).unwrap();
        let (name, service) = document.services.first_key_value().unwrap();
        let image = ReleaseImage {
            digest: service.image,
            bytes: 5 << 20,
            entries: 321,
            packages: Vec::new(),
            handmade: None,
        };
        Ok(Answer::Release(Box::new(ReleaseAnswer {
            release: document.id(),
            created: Some(Timestamp(1_790_000_000_042)),
            by: Some("root".into()),
            state: ReleaseState::Live,
            pinned: true,
            images: [(name.clone(), image)].into(),
            damaged_images: [].into(),
            document,
        })))
    });
    assert_snapshot!(place.kiln(&["releases", "show", "r-5555"]), @r"
        status: 0
        --- stdout
        r-ebd216ca53625ebf5ea23ab465deefc6 of hello, live, pinned
        first served 2026-09-21 14:13:20Z for root
        service web
          instances   4
          port        8080, h2c
          image       sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
                      0 packages, 321 paths, 5.0 MiB
          run         argv /usr/sbin/nginx -g 'daemon off;'
          run         groups 4 5
          run         stop_grace 10s
          run         stop_signal 3
          run         user www-data (33:34)
          run         workdir /srv
          env         GREETING=hello
          env         PATH=/usr/bin
          env         PATH (of the image)=/usr/bin
          secret      API_KEY s-0123456789abcdef0123 (also $API_TOKEN)
          limit       circuit 16 in flight, 64 waiting for 2s
          limit       cpu 0.5
          limit       io.read 10MiB/s
          limit       io.reads 100/s
          limit       memory 64MiB
          limit       pids 256
          capability  KILL
          volatile    /run 4MiB, executable
          need        api the service of this name, at port 9000
          need        db the store at 192.0.2.7:5432
          health      healthy_after 2
          health      interval 100ms
          health      probe http /health answers 204 containing `well`
          health      start_timeout 30s
          health      timeout 1s
          health      unhealthy_after 3
          hook        after 1 /bin/notify (at most 5s)
          hook        before 1 /bin/migrate (at most 1m)
          check       http / (ba7816bf8f01)
        the whole
          route       main www.example.com /shop to web, only over https, bodies up to 10MiB, answers within 5m
          tcp         git port 9418 to web
          certificate /etc/tls/cert.pem with the key /etc/tls/key.pem
          certificate automatic for the hosts of the routes
          deploy      drain 30s
          deploy      keep_warm 10m
          deploy      schema 6 to 7
          deploy      strategy canary of 5%, 50% for 1m to 10m each, 1% more errors and 20% slower at most, with previews
          policy      forbid package telnetd
          release     app hello
          release     format 2
        ");
}
