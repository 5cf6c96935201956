//! What an image's documents say, judged by the official schema and by what is known of the image otherwise.

use std::collections::BTreeSet;
use std::process::Command;

use kiln_model::{ImageRecord, LockedImage, Sha256};
use kiln_store::Store;
use serde_json::Value;

/// Validates a document against the schema of CycloneDX 1.6 and those it refers to; prints what is wrong. The keyword
/// is defined anew because Debian's release of the validator stumbles over objects when it words the error.
const VALIDATE: &str = "
import json, sys, jsonschema
load = lambda name: json.load(open(sys.argv[1] + '/' + name))
bom = load('bom-1.6.schema.json')
store = {'http://cyclonedx.org/schema/' + name: load(file) for name, file in
         [('spdx.SNAPSHOT.schema.json', 'spdx.schema.json'), ('jsf-0.82.SNAPSHOT.schema.json', 'jsf-0.82.schema.json')]}
def additional(validator, allowed, instance, schema):
    items = schema.get('items', [])
    if allowed is False and isinstance(items, list) and len(instance) > len(items):
        yield jsonschema.ValidationError('more items than allowed')
Judge = jsonschema.validators.extend(jsonschema.Draft7Validator, {'additionalItems': additional})
resolver = jsonschema.RefResolver(bom['$id'], bom, store)
errors = list(Judge(bom, resolver=resolver).iter_errors(json.load(open(sys.argv[2]))))
for e in errors: print(list(e.absolute_path), e.message[:300])
sys.exit(len(errors) > 0)
";

fn document(store: &Store, record: &ImageRecord, name: &str) -> (std::path::PathBuf, Value) {
    let bytes = store.image_document(&record.digest, name).unwrap().unwrap();
    let object = &record.documents[name];
    assert!(store.image_objects(&record.digest).unwrap().unwrap().contains(object), "kept with the image");
    (store.objects().path(object), serde_json::from_slice(&bytes).unwrap())
}

fn validated(path: &std::path::Path) -> Result<(), String> {
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cyclonedx");
    let mut python = Command::new("/usr/bin/python3");
    let out = python.args(["-c", VALIDATE, schemas]).arg(path).output().unwrap();
    match out.status.code() {
        Some(0) => Ok(()),
        _ => Err(String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()),
    }
}

pub(crate) fn assert_sbom(store: &Store, record: &ImageRecord, locked: &LockedImage) {
    let (path, sbom) = document(store, record, ImageRecord::SBOM);
    validated(&path).unwrap_or_else(|e| panic!("{e} (these tests need the package python3-jsonschema)"));
    assert_the_judge_can_say_no(&sbom);

    let components = sbom["components"].as_array().unwrap();
    let found: Vec<(&str, &str)> =
        components.iter().map(|c| (c["name"].as_str().unwrap(), c["version"].as_str().unwrap())).collect();
    let expected: Vec<(&str, &str)> =
        locked.packages.iter().map(|p| (p.name.as_str(), p.version.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(record.packages, locked.package_refs());
    for (component, package) in components.iter().zip(&locked.packages) {
        assert_eq!(component["hashes"][0]["content"], package.sha256.hex(), "{}", package.name);
    }

    let of = |name: &str| components.iter().find(|c| c["name"] == name).unwrap();
    assert_eq!(of("libc6")["pedigree"]["ancestors"][0]["name"], "glibc");
    assert!(of("libc6")["purl"].as_str().unwrap().ends_with("?arch=amd64&distro=debian-12"));
    assert!(licences(of("dpkg")).contains("GPL-2.0-or-later"), "{:?}", licences(of("dpkg")));
    assert!(licences(of("nginx-light")).contains("BSD-2-Clause"), "{:?}", licences(of("nginx-light")));
    // One whose copyright file is prose.
    let prose = "see /usr/share/doc/perl-base/copyright (not machine-readable)";
    assert!(!licences(of("perl-base")).contains(prose));
    assert!(components.iter().all(|c| !licences(c).is_empty()));
    assert!(components.iter().any(|c| licences(c).iter().any(|l| l.ends_with("(not machine-readable)"))));
}

fn licences(component: &Value) -> BTreeSet<String> {
    let all = component["licenses"].as_array().unwrap().iter().map(|l| &l["license"]);
    all.filter_map(|l| l["id"].as_str().or(l["name"].as_str())).map(str::to_owned).collect()
}

fn assert_the_judge_can_say_no(sbom: &Value) {
    let mut bad = sbom.clone();
    bad["components"][0]["licenses"][0]["license"] = serde_json::json!({ "id": "No-Such-Licence" });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bad.to_string()).unwrap();
    let said = validated(file.path()).unwrap_err();
    assert!(said.contains("No-Such-Licence"), "{said}");
}

pub(crate) fn assert_provenance(store: &Store, record: &ImageRecord, locked: &LockedImage) {
    let (_, statement) = document(store, record, ImageRecord::PROVENANCE);
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let metadata = std::fs::read(store.handle(&record.digest).unwrap().metadata).unwrap();
    assert_eq!(statement["subject"][0]["digest"]["sha256"], Sha256::of(&metadata).hex());
    assert_eq!(statement["subject"][0]["digest"]["fsverity_sha256"], record.digest.hex());
    let definition = &statement["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["request"]["requested"][0], "nginx-light");
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    for package in &locked.packages {
        let known = |d: &&Value| d["name"] == package.name && d["digest"]["sha256"] == package.sha256.hex();
        assert!(dependencies.iter().any(|d| known(&d)), "{}", package.name);
    }
    assert!(dependencies.iter().any(|d| d["name"] == "/srv/www/index.html"));
    // Nothing of where and when.
    let text = statement.to_string();
    for leak in ["/tmp", "startedOn", &std::fs::read_to_string("/etc/hostname").unwrap_or_default()] {
        assert!(leak.trim().is_empty() || !text.contains(leak.trim()), "{leak}");
    }
}
