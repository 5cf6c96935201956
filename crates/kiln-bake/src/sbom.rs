//! What is inside an image, as a CycloneDX 1.6 document.

use kiln_model::{ImageRecord, LockedImage, LockedPackage};
use serde_json::{Value, json};

/// The document's name beside its image.
pub(crate) const NAME: &str = "sbom.cdx.json";

/// The document of an image. It names no moment: the same image has the same document.
pub(crate) fn document(record: &ImageRecord, locked: &LockedImage) -> Vec<u8> {
    let distribution = locked.request.from.replace(':', "-");
    let components: Vec<Value> = locked.packages.iter().map(|p| component(p, &distribution)).collect();
    let document = json!({
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
        "components": components,
    });
    serde_json::to_vec_pretty(&document).expect("plain data that JSON can hold")
}

fn component(package: &LockedPackage, distribution: &str) -> Value {
    let purl = purl(package, distribution);
    json!({
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "hashes": [{ "alg": "SHA-256", "content": package.sha256.hex() }],
    })
}

fn purl(package: &LockedPackage, distribution: &str) -> String {
    let LockedPackage { name, version, architecture, .. } = package;
    format!("pkg:deb/debian/{}@{}?arch={architecture}&distro={distribution}", encoded(name), encoded(version))
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
