//! What tests of whole data directories do with them: copy them as a crash leaves them, and wait for calls of the log.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;

use quilt_storage::Completion;

/// Makes one call of the log and waits until it is done.
pub(crate) fn wait(call: impl FnOnce(Completion)) {
    let (tell, told) = mpsc::channel();
    call(Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap().unwrap();
}

/// Copies a directory with everything below it.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
