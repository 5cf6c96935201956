//! What a commit is told to have kept.

use insta::assert_snapshot;
use kiln_model::{Answer, Command, CommitAnswer, Handmade, ImageDigest, KeptPath, NotKept, Sha256};

use crate::harness::Place;

#[test]
fn a_commit_says_what_it_kept_and_what_it_takes_to_use_it() {
    let place = Place::new();
    let _host = place.host("a", |command, _| {
        let Command::Commit { instance, name } = command else { panic!("{command:?}") };
        let image = ImageDigest(Sha256::of(b"abc"));
        let name = name.unwrap_or_else(|| "web".parse().unwrap());
        let handmade = Handmade { name, image, instance, kept: vec!["/srv/hand".into()] };
        let kept = vec![KeptPath { path: "/srv/hand".into(), entries: 2, bytes: 2048 }];
        let left_out = vec![NotKept { path: "/srv/hand/socket".into(), why: "it is a socket".into() }];
        Ok(Answer::Committed(CommitAnswer { image, handmade, kept, left_out }))
    });
    assert_snapshot!(place.kiln(&["commit", "hello-web-3-2", "--name", "fixed"]), @r#"
        status: 0
        --- stdout
        image ba7816bf8f01 of hello-web-3-2, called fixed
        kept /srv/hand (2 paths, 2.0 KiB), which is not volatile in it any more
        left out /srv/hand/socket: it is a socket
        it is handmade: `from = "image:fixed"` needs `allow_handmade = true` under [policy]
        "#);
    assert_snapshot!(place.kiln(&["commit", "hello-web-3-2", "--json"]), @r#"
        status: 0
        --- stdout
        {"image":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","handmade":{"name":"web","image":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","instance":"hello-web-3-2","kept":["/srv/hand"]},"kept":[{"path":"/srv/hand","entries":2,"bytes":2048}],"left_out":[{"path":"/srv/hand/socket","why":"it is a socket"}]}
        "#);
}
