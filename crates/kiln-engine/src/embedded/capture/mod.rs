//! What instances write, on its way to files.
//!
//! | module | noun |
//! |---|---|
//! | `pipe` | one output of one instance, read without ever waiting |
//! | `lines` | bytes cut into lines |
//! | `output_file` | the file of an instance, bounded in size |

mod lines;
mod output_file;
mod pipe;

pub(super) use output_file::OutputDir;
pub(super) use pipe::OutputPipe;
