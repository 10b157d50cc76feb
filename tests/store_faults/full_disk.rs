//! A disk that is full, and not a store that is told so: a small file system of its own where this machine lets
//! everybody mount one, else a limit on the size of files. It is found out in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mainstay::checkpoint::{FileStore, Retention, Wall};
use mainstay::error::RecoverError;

use super::*;

/// What tells the process that it is the one, and where its disk is.
const DISK: &str = "MAINSTAY_FULL_DISK";

const MIB: u64 = 1 << 20;

/// Keeps much, and each time something else that nothing can be compressed of.
#[derive(Clone, Default)]
struct Hoarder {
    sum: Arc<u64>,
    heap: Arc<Vec<u64>>,
}

impl Behavior for Hoarder {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Hoarder {
    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.sum = Arc::new(*self.sum + request);
        let mut next = *self.sum | 1;
        let mut more = || {
            next ^= next << 13;
            next ^= next >> 7;
            next ^= next << 17;
            next
        };
        self.heap = Arc::new((0..3_000).map(|_| more()).collect());
        Ok(Step::Reply(*self.sum))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("hoarder", 1).with("sum", Arc::clone(&self.sum));
        Some(snapshot.with("heap", Arc::clone(&self.heap)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        (self.sum, self.heap) = (snapshot.get("sum")?, snapshot.get("heap")?);
        Ok(())
    }
}

/// Keeps nothing anywhere.
#[derive(Clone)]
struct Plain;

impl Behavior for Plain {
    type Request = u64;
    type Reply = u64;
}

impl Stateless for Plain {
    async fn serve(&self, request: &u64, _: &Context) -> Result<u64, Fault> {
        Ok(*request)
    }
}

async fn open(store: &Arc<dyn Store>) -> Result<(System, Port<u64, u64>), RecoverError> {
    let spec = SupervisorSpec::one_for_one("desk")
        .child(ChildSpec::stateless("plain", || Plain))
        .child(ChildSpec::stateful("hoarder", Hoarder::default).durable::<Hoarder>());
    let (system, _) = System::recover(spec, Arc::clone(store)).await?;
    let port = system.port("desk/hoarder").unwrap();
    Ok((system, port))
}

fn files(folder: &Path) -> Arc<dyn Store> {
    Arc::new(FileStore::open(folder.join("store")).unwrap())
}

/// Fills the disk, and goes on once `make_room` has made some.
async fn fills(disk: &Path, make_room: impl FnOnce()) {
    let store = files(disk);
    let (system, port) = open(&store).await.unwrap();
    let mut sum = 0;
    let error = loop {
        assert!(sum < 4_000, "it does not fill");
        match port.call(1_u64).await {
            Ok(answer) => sum = answer.value,
            Err(error) => break error,
        }
    };
    assert!(sum > 10, "{error}");
    let text = error.to_string();
    let folder = disk.join("store");
    assert_eq!(code(&error), Some("store"), "{text}");
    assert!(text.contains(&format!("store \"{}\" is full", folder.display())), "{text}");
    // Nothing of it is kept, and each is told anew, unless the store has made room by itself meanwhile.
    for _ in 0..3 {
        match port.call(1_u64).await {
            Ok(answer) => {
                assert_eq!(answer.value, sum + 1);
                sum = answer.value;
            }
            Err(again) => assert!(again.to_string().contains("is full"), "{again}"),
        }
    }
    // Who needs no disk works, and what was written can be read.
    let plain: Port<u64, u64> = system.port("desk/plain").unwrap();
    assert_eq!(plain.call(7_u64).await.unwrap().value, 7);
    let newest = store.checkpoints(&"desk/hoarder".into()).unwrap()[0].checkpoint.id;
    assert_eq!(*store.load(newest).unwrap().snapshot.get::<u64>("sum").unwrap(), sum);
    assert!(system.tree().to_string().contains("hoarder"));
    make_room();
    for n in 1..=20 {
        let answer = port.call(1_u64).await.map(|answer| answer.value);
        assert_eq!(answer.unwrap(), sum + n, "the same process goes on");
    }
    // What is not needed any more can be given back.
    store.retain(Retention { checkpoints: 2, lines: 1 }, Wall(u64::MAX)).unwrap();
    store.compact().unwrap();
    system.stop().await;
    drop((port, plain, system, store));
    let store = files(disk);
    let (system, port) = open(&store).await.unwrap();
    assert_eq!(port.call(1_u64).await.unwrap().value, sum + 21, "and so does the next one");
    system.stop().await;
}

/// Whoever opens a store on a disk that is full already.
async fn opens(disk: &Path, make_room: impl FnOnce()) {
    let sum = {
        let store = files(disk);
        let (system, port) = open(&store).await.unwrap();
        let mut sum = 0;
        while let Ok(answer) = port.call(1_u64).await {
            sum = answer.value;
        }
        system.stop().await;
        sum
    };
    // It opens, or says that there is no room; what was accepted is there in any case.
    let room = {
        let store = files(disk);
        match open(&store).await {
            Ok((system, _)) => system.stop().await,
            Err(error) => assert!(error.to_string().contains("is full"), "{error}"),
        }
        make_room
    };
    room();
    let store = files(disk);
    let (system, port) = open(&store).await.unwrap();
    assert_eq!(port.call(1_u64).await.unwrap().value, sum + 1);
    system.stop().await;
}

fn in_this_process(disk: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for (name, opened) in [("filled", false), ("opened", true)] {
        let disk = disk.join(name);
        std::fs::create_dir(&disk).unwrap();
        let ballast = disk.join("ballast");
        if std::env::var_os("MAINSTAY_FILE_LIMIT").is_none() {
            std::fs::write(&ballast, vec![1_u8; MIB as usize]).unwrap();
        }
        let make_room = || {
            if ballast.exists() {
                return std::fs::remove_file(&ballast).unwrap();
            }
            limit_files("unlimited");
        };
        runtime.block_on(async {
            match opened {
                true => opens(&disk, make_room).await,
                false => fills(&disk, make_room).await,
            }
        });
        std::fs::remove_dir_all(&disk).unwrap();
        if std::env::var_os("MAINSTAY_FILE_LIMIT").is_some() {
            limit_files(&MIB.to_string());
        }
    }
    println!("FULL DISK DONE");
}

/// Of this process, which is told by the signal that it ignores.
fn limit_files(bytes: &str) {
    let pid = std::process::id().to_string();
    let limit = format!("--fsize={bytes}:unlimited");
    let done = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(done.as_ref().is_ok_and(std::process::ExitStatus::success), "prlimit: {done:?}");
}

/// Runs this test anew, by a script that has `$0` be this program and `$1` the disk.
fn in_another(script: &str, disk: &Path) -> std::process::Output {
    let (program, name) = (std::env::current_exe().unwrap(), "full_disk::a_disk_that_is_full");
    let mut command = match script.starts_with("mount") {
        true => {
            let mut command = Command::new("unshare");
            command.args(["-rm", "sh"]);
            command
        }
        false => Command::new("sh"),
    };
    let run = format!("{script} exec \"$0\" --nocapture --test-threads=1 {name}");
    command.arg("-c").arg(run).arg(program).arg(disk).env(DISK, disk).output().unwrap()
}

#[test]
fn a_disk_that_is_full_fails_what_it_cannot_take_and_the_same_process_goes_on_when_there_is_room() {
    if let Some(disk) = std::env::var_os(DISK) {
        return in_this_process(&PathBuf::from(disk));
    }
    let disk = tempfile::tempdir().unwrap();
    let mut mounts = Command::new("unshare");
    mounts.args(["-rm", "mount", "-t", "tmpfs", "-o", "size=64k", "none"]).arg(disk.path());
    let done = if mounts.output().is_ok_and(|mounted| mounted.status.success()) {
        in_another("mount -t tmpfs -o size=3m none \"$1\" &&", disk.path())
    } else {
        eprintln!("no file system can be mounted here: the size of files is limited instead");
        let script = "export MAINSTAY_FILE_LIMIT=1; trap '' XFSZ; ulimit -S -f 2048 &&";
        in_another(script, disk.path())
    };
    let (told, failed) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && told.contains("FULL DISK DONE"), "{told}\n{failed}");
}
