//! Whether an image may be started: what of it is damaged, as far as the states of its files show.
//!
//! All its objects are looked at, and those that were written to are read; it takes some milliseconds. Nothing is
//! removed: a running instance may need what is left of it.

use kiln_model::{ImageDigest, ObjectDigest};

use crate::error::on;
use crate::objects::digest_of;
use crate::presence::{Entry, FEW, Seen, if_there_is_room, is_suspect};
use crate::shelves::Shelves;
use crate::side_by_side::each;
use crate::verify::note;
use crate::{Damage, Moment, Result, Store};

impl Store {
    /// What of an image is damaged or missing; nothing if all is well. What a disk loses without a trace in the state of a
    /// file is only found by [`Store::verify`].
    ///
    /// # Errors
    /// [`crate::StoreError::NoSuchImage`], or what the system refused.
    pub fn damage_of(&self, image: &ImageDigest) -> Result<Vec<Damage>> {
        let (metadata, objects) = std::thread::scope(|scope| {
            // Its metadata is hashed meanwhile.
            let metadata = scope.spawn(|| self.handle(image));
            let objects = self.damage_of_objects(image);
            (metadata.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), objects)
        });
        let mut found = Vec::new();
        note(metadata, &mut found)?;
        found.extend(objects?);
        Ok(found)
    }

    fn damage_of_objects(&self, image: &ImageDigest) -> Result<Vec<Damage>> {
        let mut found = Vec::new();
        match note(self.image_objects(image), &mut found)? {
            Some(Some(objects)) => found.extend(self.damage_among(image, objects.into_iter().collect())?),
            Some(None) => {
                found.push(Damage { path: self.objects_list(image), problem: "it is missing".into() });
            }
            None => {}
        }
        Ok(found)
    }

    fn damage_among(&self, image: &ImageDigest, objects: Vec<ObjectDigest>) -> Result<Vec<Damage>> {
        let list = self.objects_list(image);
        let since = Moment::written(&list.metadata().map_err(on("look for", &list))?);
        let shelves = Shelves::of(self)?;
        // Taken before anything is looked at: what changes meanwhile is looked at the next time.
        let marks = shelves.marks();
        let seen = self.seen(&image.0);
        let look = |n: usize, digest: &ObjectDigest| -> Result<std::result::Result<Entry, Damage>> {
            // Only of what is damaged: most of the time would go into paths.
            let path = || self.objects().path(digest);
            let Some(state) = shelves.state_of(digest)?.filter(|state| state.is_file) else {
                let problem = format!("it is missing, and image {image} needs it");
                return Ok(Err(Damage { path: path(), problem }));
            };
            if is_suspect(&state, seen.of(n, digest), Some(since)) {
                let content = digest_of(&path())?;
                if content != *digest {
                    return Ok(Err(Damage { path: path(), problem: format!("its content is {content}") }));
                }
            }
            Ok(Ok(Entry::new(digest, state.stamp)))
        };
        let (mut entries, mut damage) = (Vec::with_capacity(objects.len()), Vec::new());
        for looked in each(&objects, FEW, look)? {
            match looked {
                Ok(entry) => entries.push(entry),
                Err(damaged) => damage.push(damaged),
            }
        }
        let now = Seen { marks, entries: Some(entries) };
        if damage.is_empty() && now != seen {
            if_there_is_room(self.remember(&image.0, &now))?;
        }
        Ok(damage)
    }
}
