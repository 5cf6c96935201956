//! What is inside an image, as a CycloneDX 1.6 document.
//!
//! | of a package | from |
//! |---|---|
//! | name, version, architecture, source package, home page | dpkg's database in the image |
//! | licences | `/usr/share/doc/PACKAGE/copyright`: by name where it is machine-readable (DEP-5), else named as prose |
//! | hash of the package file | the lock |

mod copyright;
mod installed;
mod spdx;

use std::collections::BTreeMap;

use kiln_model::{ImageRecord, LockedImage, Sha256, Tree};
use kiln_store::{Store, StoreError};
use serde_json::{Value, json};

use copyright::Licences;
pub(crate) use copyright::licences as licences_of;
pub(crate) use installed::{Installed, installed};

/// The distribution an image is of, as package URLs name it.
pub(crate) struct Distribution {
    id: String,
    release: String,
}

impl Distribution {
    /// As the tree's `os-release` says.
    pub(crate) fn of(tree: &Tree, store: &Store) -> Result<Self, StoreError> {
        let text = installed::text(tree, b"/etc/os-release", store)?.unwrap_or_default();
        let value = |key: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
            line.map(|v| v.trim_matches('"').to_owned()).filter(|v| !v.is_empty())
        };
        let release = value("VERSION_ID").or_else(|| value("VERSION_CODENAME")).unwrap_or_default();
        Ok(Self { id: value("ID").unwrap_or_else(|| "debian".into()), release })
    }

    /// The URL of a package built for `architecture`; `source` for a source package.
    pub(crate) fn purl(&self, name: &str, version: &str, architecture: &str) -> String {
        let (id, name, version) = (encoded(&self.id), encoded(name), encoded(version));
        let distro = match self.release.as_str() {
            "" => id.clone(),
            release => format!("{id}-{}", encoded(release)),
        };
        format!("pkg:deb/{id}/{name}@{version}?arch={}&distro={distro}", encoded(architecture))
    }
}

/// The document of an image. It names no moment: the same image has the same document.
pub(crate) fn document(
    record: &ImageRecord,
    packages: &[Installed],
    locked: &LockedImage,
    distribution: &Distribution,
) -> Vec<u8> {
    let hashes: BTreeMap<(&str, &str), &Sha256> =
        locked.packages.iter().map(|p| ((p.name.as_str(), p.version.as_str()), &p.sha256)).collect();
    let component = |package: &Installed| {
        let hash = hashes.get(&(package.name.as_str(), package.version.as_str()));
        component(package, hash.copied(), distribution)
    };
    let components: Vec<Value> = packages.iter().map(component).collect();
    let refs: Vec<&Value> = components.iter().map(|c| &c["bom-ref"]).collect();
    let mut document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": "kiln", "version": env!("CARGO_PKG_VERSION") }] },
            "component": {
                "type": "container",
                "bom-ref": record.digest.to_string(),
                "name": record.name.as_str(),
                "version": record.digest.to_string(),
            },
        },
        "dependencies": [{ "ref": record.digest.to_string(), "dependsOn": refs }],
        "components": components,
    });
    if let Some(handmade) = &record.handmade {
        let property = |name: &str, value: &str| json!({ "name": name, "value": value });
        document["metadata"]["component"]["properties"] = json!([
            property("kiln:handmade", "true"),
            property("kiln:handmade:over", &handmade.image.to_string()),
            property("kiln:handmade:instance", handmade.instance.as_str()),
        ]);
    }
    serde_json::to_vec_pretty(&document).expect("plain data that JSON can hold")
}

fn component(package: &Installed, sha256: Option<&Sha256>, distribution: &Distribution) -> Value {
    let purl = distribution.purl(&package.name, &package.version, &package.architecture);
    let source = &package.source;
    let source_purl = distribution.purl(&source.name, &source.version, "source");
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "licenses": licences(package),
        "pedigree": { "ancestors": [{
            "type": "library",
            "name": source.name,
            "version": source.version,
            "purl": source_purl,
        }] },
    });
    if let Some(sha256) = sha256 {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256.hex() }]);
    }
    if let Some(homepage) = &package.homepage {
        component["externalReferences"] = json!([{ "type": "website", "url": homepage }]);
    }
    component
}

/// All that apply. What is not in a machine's words is named as what it is.
fn licences(package: &Installed) -> Value {
    let one = |name: &str| {
        let key = if spdx::is_id(name) { "id" } else { "name" };
        json!({ "license": { key: name, "acknowledgement": "declared" } })
    };
    let path = installed::copyright_file(&package.name);
    match &package.licences {
        Licences::Declared(names) => names.iter().map(|name| one(name)).collect(),
        Licences::Prose => json!([one(&format!("see {path} (not machine-readable)"))]),
        Licences::Unknown => json!([one(&format!("unknown (there is no {path})"))]),
    }
}

/// Percent-encoded as package URLs want it.
fn encoded(text: &str) -> String {
    let one = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "-._~:".contains(c) => c.to_string(),
        c => c.to_string().bytes().map(|b| format!("%{b:02X}")).collect(),
    };
    text.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_encoded() {
        assert_eq!(encoded("1:2.3-4+deb12u1~rc"), "1:2.3-4%2Bdeb12u1~rc");
    }
}
