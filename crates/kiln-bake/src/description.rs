//! What an image says of itself, in an xattr of its root directory: how it is run, what is volatile in it, and over
//! which image hands made it, or the one it starts from. So its digest covers that, and whoever gets an image from
//! elsewhere can hold its record to it.

use std::collections::BTreeSet;

use kiln_model::{ImageDigest, ImageRecord, Node, ObjectDigest, RunSettings, Tree, Volatile};
use serde::{Deserialize, Serialize};

use crate::erofs;
use crate::tree_edit::TreeEdit;

/// The xattr.
pub(crate) const SETTINGS: &[u8] = b"user.kiln.image";

#[derive(Serialize, Deserialize)]
struct Description {
    run: RunSettings,
    volatile: Vec<Volatile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handmade_over: Option<ImageDigest>,
}

/// Has the tree say how it is run, and over which image hands made it, if so, or the one it starts from. Which instance it
/// was is not said, so that the same state is the same image.
pub(crate) fn describe(
    edit: &mut TreeEdit,
    run: &RunSettings,
    volatile: &[Volatile],
    handmade_over: Option<&ImageDigest>,
) {
    let description =
        Description { run: run.clone(), volatile: volatile.to_vec(), handmade_over: handmade_over.copied() };
    let json = serde_json::to_vec(&description).expect("plain data that JSON can hold");
    if let Some(Node::Directory(meta)) = edit.node_mut(b"/") {
        meta.xattrs.insert(SETTINGS.to_vec(), json);
    }
}

/// The objects in the tree of an image that comes from elsewhere.
///
/// # Errors
/// Why it is none that Kiln writes (a kernel is to mount nothing else), or not the one its record tells of.
pub fn objects_of_foreign(metadata: &[u8], record: &ImageRecord) -> Result<BTreeSet<ObjectDigest>, String> {
    let tree = erofs::read(metadata).map_err(|e| e.to_string())?;
    let said = tree.get(b"/").and_then(Node::meta).and_then(|meta| meta.xattrs.get(SETTINGS));
    let said = said.ok_or("it does not say how it is run")?;
    let said: Description =
        serde_json::from_slice(said).map_err(|e| format!("what it says of itself does not read: {e}"))?;
    if said.run != record.run {
        return Err("its record has it run in another way than it says itself".into());
    }
    if said.volatile != record.volatile {
        return Err("its record has other volatile paths than it says itself".into());
    }
    if said.handmade_over.is_some() != record.handmade.is_some() {
        return Err(
            "its record and what it says itself differ in whether hands made it or what it starts from"
                .into(),
        );
    }
    objects_as_counted(&tree, metadata.len() as u64, record)
}

/// The objects of `tree`, if its record has the format and the sizes that follow from it.
fn objects_as_counted(
    tree: &Tree,
    metadata_bytes: u64,
    record: &ImageRecord,
) -> Result<BTreeSet<ObjectDigest>, String> {
    let again = erofs::write(tree).map_err(|e| e.to_string())?;
    if record.format != again.format {
        return Err("its record has it in another format than it is in".into());
    }
    let counted = (metadata_bytes, again.content_bytes, again.entries);
    if (record.metadata_bytes, record.content_bytes, record.entries) != counted {
        return Err("its record has other sizes than it".into());
    }
    if metadata_bytes.checked_add(again.content_bytes).is_none() {
        return Err("its files add up to more than any disk holds".into());
    }
    Ok(again.objects.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use kiln_model::{ByteSize, Content, Handmade, ImageFormat, Sha256};
    use kiln_store::Verity;

    use super::*;
    use crate::tree_edit::{directory, root_meta};

    fn image() -> (Vec<u8>, ImageRecord, ObjectDigest) {
        image_of(|edit, run, volatile| describe(edit, run, volatile, None))
    }

    /// One with two files that says of itself what `say` has it say.
    fn image_of(
        say: impl Fn(&mut TreeEdit, &RunSettings, &[Volatile]),
    ) -> (Vec<u8>, ImageRecord, ObjectDigest) {
        let mut edit = TreeEdit::new(Tree::new());
        edit.put(b"/", directory(0o755, 0)).unwrap();
        let object = ObjectDigest(Sha256::of(b"of a file"));
        let content = Content::Object { digest: object, size: 5000 };
        edit.put(b"/file", Node::File(root_meta(0o644, 0), content)).unwrap();
        edit.put(b"/small", Node::File(root_meta(0o644, 0), Content::Inline(b"inside".to_vec()))).unwrap();
        let run = RunSettings::as_root(["/file"]);
        let volatile = vec![Volatile::new("/run", ByteSize(1 << 20))];
        say(&mut edit, &run, &volatile);
        let written = erofs::write(&edit.into_tree()).unwrap();
        let record = ImageRecord {
            format: written.format,
            digest: ImageDigest(Verity::of(&written.bytes).0),
            name: "web".parse().unwrap(),
            metadata_bytes: written.bytes.len() as u64,
            content_bytes: written.content_bytes,
            entries: written.entries,
            packages: vec![],
            run,
            volatile,
            inputs: Sha256::of(b"inputs"),
            documents: Default::default(),
            left_out: vec![],
            handmade: None,
        };
        (written.bytes, record, object)
    }

    #[test]
    fn a_record_is_held_to_what_the_image_says_itself() {
        let (metadata, record, object) = image();
        assert_eq!(objects_of_foreign(&metadata, &record), Ok([object].into()));
        let refused = |record: ImageRecord, says: &str| {
            let problem = objects_of_foreign(&metadata, &record).unwrap_err();
            assert!(problem.contains(says), "{problem}");
        };
        let run = RunSettings { uid: 1000, ..record.run.clone() };
        refused(ImageRecord { run, ..record.clone() }, "run in another way");
        let volatile = vec![Volatile::new("/etc", ByteSize(1 << 20))];
        refused(ImageRecord { volatile, ..record.clone() }, "other volatile paths");
        let handmade = Some(Handmade {
            name: "web".parse().unwrap(),
            image: record.digest,
            instance: "hello-web-1-1".parse().unwrap(),
            kept: vec![],
        });
        refused(ImageRecord { handmade, ..record.clone() }, "whether hands made it");
        let format = ImageFormat::with(["acl"]);
        refused(ImageRecord { format, ..record.clone() }, "another format");
        refused(ImageRecord { metadata_bytes: u64::MAX, ..record.clone() }, "other sizes");
        refused(ImageRecord { content_bytes: record.content_bytes + 1, ..record.clone() }, "other sizes");
        refused(ImageRecord { entries: record.entries - 1, ..record.clone() }, "other sizes");
        assert!(objects_of_foreign(&metadata[..metadata.len() / 2], &record).is_err());
    }

    #[test]
    fn an_image_that_says_nothing_that_can_be_read_is_refused() {
        let problem = |(metadata, record, _): (Vec<u8>, ImageRecord, _)| {
            objects_of_foreign(&metadata, &record).unwrap_err()
        };
        let silent = problem(image_of(|_, _, _| ()));
        assert!(silent.contains("does not say how it is run"), "{silent}");
        let garbled = problem(image_of(|edit, _, _| {
            let Some(Node::Directory(meta)) = edit.node_mut(b"/") else { panic!("no root") };
            meta.xattrs.insert(SETTINGS.to_vec(), b"{\"run\": 7}".to_vec());
        }));
        assert!(garbled.contains("does not read"), "{garbled}");
    }

    #[test]
    fn files_that_add_up_to_more_than_can_be_counted_are_refused() {
        let (metadata, record, _) = image();
        let tree = erofs::read(&metadata).unwrap();
        let record = ImageRecord { metadata_bytes: u64::MAX, ..record };
        let problem = objects_as_counted(&tree, u64::MAX, &record).unwrap_err();
        assert!(problem.contains("more than any disk holds"), "{problem}");
    }
}
