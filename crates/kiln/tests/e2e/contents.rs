//! What is inside is known from the record, held against the policy, and found again in what runs.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use crate::host::{TestHost, said};
use crate::project::Project;

#[test]
fn the_record_tells_who_holds_a_package() {
    let host = TestHost::start();
    let release = host.deploy(&Project::example("hello"));
    let audit = host.json(&["audit", "--package", "nginx-light"]);
    let entry = &audit["services"][0];
    assert_eq!((entry["release"].as_str(), entry["state"].as_str()), (Some(release.as_str()), Some("live")));
    assert!(entry["packages"][0]["version"].as_str().unwrap().starts_with("1.22."), "{audit}");
    let running = host.json(&["instances"]).as_array().unwrap().len();
    assert_eq!(entry["instances"].as_array().unwrap().len(), running);
    for absent in ["nginx-light<1", "no-such-package"] {
        let audit = host.json(&["audit", "--package", absent]);
        assert_eq!(audit["services"][0]["packages"].as_array().unwrap().len(), 0, "{absent}: {audit}");
    }
    let words = said(&host.kiln(&["audit", "--package", "nginx-light<99"]));
    assert!(words.contains("in 1 of 1 service"), "{words}");
}

#[test]
fn what_the_policy_forbids_is_refused_before_anything_is_made() {
    let host = TestHost::start();
    let good = host.deploy(&Project::example("hello"));
    let project = Project::example("hello");
    project.append("kiln.toml", "\n[policy]\nforbid_packages = [\"nginx-light>=1\"]\n");
    for command in ["plan", "deploy"] {
        let output = host.kiln(&[command, project.dir()]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(7), "{text}");
        assert!(text.contains("forbid_packages = [\"nginx-light>=1\"]"), "the line of the spec: {text}");
        assert!(text.contains("holds nginx-light 1.22."), "the package: {text}");
    }
    assert_eq!(host.live(), good);
    let kept = Project::example("hello");
    kept.append("kiln.toml", "\n[policy]\nforbid_packages = [\"telnet\"]\n");
    let release = host.deploy(&kept);
    assert_ne!(release, good, "the policy is part of the release");
    assert_eq!(host.json(&["audit"])["services"][0]["policy"][0], "forbid package telnet");
}

#[test]
fn everything_is_what_it_should_be_until_it_is_touched() {
    let host = TestHost::start();
    host.deploy(&Project::example("hello"));
    let well = host.json(&["verify"]);
    assert_eq!(well["damage"].as_array().unwrap().len(), 0, "{well}");
    let instances = well["instances"].as_array().unwrap();
    assert!(
        !instances.is_empty() && instances.iter().all(|i| i["differs"] == serde_json::json!([])),
        "{well}"
    );

    // Somebody mounts something over a directory of one instance.
    let pid = host.json(&["instances"])[0]["pid"].to_string();
    mount_over(&pid, "/srv");
    mount_over(&pid, "/tmp");
    let touched = host.kiln(&["verify"]);
    assert_eq!(touched.status.code(), Some(9), "{}", said(&touched));
    for told in
        ["/srv is covered by a mount that its release does not declare", "2 mounts are at /tmp, not one"]
    {
        assert!(said(&touched).contains(told), "{}", said(&touched));
    }

    // Somebody lets another one see what no instance is to see, and hides what it may.
    let third = host.json(&["instances"])[2]["pid"].to_string();
    in_mounts_of(&third, || {
        rustix::mount::unmount("/proc/keys", rustix::mount::UnmountFlags::DETACH).unwrap();
        rustix::mount::mount_bind("/dev/null", "/proc/meminfo").unwrap();
    });
    let shown = host.kiln(&["verify"]);
    for told in [
        "nothing covers /proc/keys, which no instance is to see",
        "/proc/meminfo is covered by a mount that its release does not declare",
    ] {
        assert_eq!(said(&shown).matches(told).count(), 1, "{told}: {}", said(&shown));
    }

    // Somebody gives one a device. All instances of an image see the same.
    in_mounts_of(&third, || {
        use rustix::mount::{MountFlags, mount_remount};
        let kept = MountFlags::NOSUID | MountFlags::NOEXEC;
        mount_remount("/dev", MountFlags::BIND | kept, "").unwrap();
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, "/dev/mem", kind, mode, rustix::fs::makedev(1, 1)).unwrap();
        std::fs::set_permissions("/dev/tty", std::fs::Permissions::from_mode(0o600)).unwrap();
        mount_remount("/dev", MountFlags::BIND | MountFlags::RDONLY | kept, "").unwrap();
    });
    let given = host.kiln(&["verify"]);
    for told in ["/dev/mem is nothing an instance is given", "/dev/tty has mode 0600 and not 0666"] {
        assert!(said(&given).contains(told), "{told}: {}", said(&given));
    }

    // Somebody raises a limit of an instance, and changes a variable in the memory of its main process.
    let host_of = |pid: &str, name: &str| format!("/proc/{pid}/{name}");
    let second = host.json(&["instances"])[1]["pid"].to_string();
    let group = std::fs::read_to_string(host_of(&second, "cgroup")).unwrap();
    let path =
        |controller: &str| group.lines().find_map(|l| l.split_once(controller).map(|(_, p)| p.to_owned()));
    let raised = match path(":memory:") {
        Some(path) => format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"),
        None => format!("/sys/fs/cgroup{}/memory.max", path("0::").unwrap()),
    };
    for file in [raised.replace("limit_in_bytes", "memsw.limit_in_bytes"), raised] {
        if std::path::Path::new(&file).exists() {
            std::fs::write(&file, "134217728").unwrap();
        }
    }
    let limited = host.kiln(&["verify"]);
    assert!(
        said(&limited).contains("its limit of memory is 134217728, and its release has 67108864"),
        "{}",
        said(&limited)
    );

    // A byte of an object changes; its size does not.
    let image = host.json(&["instances"])[0]["image"].as_str().unwrap()["sha256:".len()..].to_owned();
    let objects =
        std::fs::read_to_string(host.root.path().join("images").join(image).join("objects")).unwrap();
    let path = objects.lines().map(|o| host.root.path().join("objects").join(&o[..2]).join(&o[2..]));
    let path = path.max_by_key(|p| p.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    // The file is shared with other tests by hard links: this one gets its own.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let damaged = host.kiln(&["verify", "--repair"]);
    assert_eq!(damaged.status.code(), Some(9), "{}", said(&damaged));
    assert!(said(&damaged).contains(&format!("{}: its content is", path.display())), "{}", said(&damaged));
    assert!(!path.exists());
    let root = host.root.path().to_str().unwrap();
    let baked = host.kiln(&["bake", "--root", root, Project::example("hello").dir()]);
    assert!(baked.status.success() && path.exists(), "it is made again: {}", said(&baked));
    let again = host.kiln(&["verify", "--json"]);
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(again["damage"], serde_json::json!([]));
}

/// Mounts a tmpfs in the mounts of a process.
fn mount_over(pid: &str, path: &'static str) {
    let nothing = rustix::mount::MountFlags::empty();
    in_mounts_of(pid, move || rustix::mount::mount("none", path, "tmpfs", nothing, None).unwrap());
}

/// Does something where a process has its mounts.
pub(crate) fn in_mounts_of(pid: &str, deed: impl FnOnce() + Send + 'static) {
    let mounts = std::fs::File::open(format!("/proc/{pid}/ns/mnt")).unwrap();
    let enter = move || {
        // SAFETY: this thread alone stops sharing its directories and then enters other mounts; it ends right after.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
        let kind = Some(rustix::thread::LinkNameSpaceType::Mount);
        rustix::thread::move_into_link_name_space(mounts.as_fd(), kind).unwrap();
        deed();
    };
    std::thread::spawn(enter).join().unwrap();
}
