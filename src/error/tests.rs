//! What is made of an error leaves it what it is.

use std::time::Duration;

use super::{CallError, Unavailable};
use crate::fate::Trail;
use crate::fault::{ExitCause, Fault};

#[test]
fn an_error_about_another_message_says_the_same_and_has_the_message_that_was_made() {
    let child = || "root/a".into();
    let why = Unavailable::Resting { retry_after: Duration::from_secs(3) };
    let fault = Box::new(Fault::network("gone"));
    let trail = Trail::default;
    let retry_after = Some(Duration::from_secs(4));
    let errors = [
        CallError::Full { message: "7", child: child() },
        CallError::Refused { message: "7", child: child(), why },
        CallError::Expired { child: child(), waited: Duration::from_secs(2), trail: trail() },
        CallError::RecoveryExhausted { child: child(), fault, trail: trail(), retry_after },
        CallError::Unknown { child: child(), trail: trail() },
        CallError::Quarantined { child: child(), trail: trail() },
        CallError::Cancelled { child: child() },
        CallError::Suspended { child: child() },
        CallError::Stopped { child: child(), cause: ExitCause::Killed },
    ];
    for error in errors {
        let (said, waits) = (error.to_string(), error.retry_after());
        let shown = format!("{error:?}").replace("\"7\"", "14");
        let other = error.map_message(|message| message.parse::<u64>().unwrap() * 2);
        assert_eq!((other.to_string(), other.retry_after()), (said, waits));
        assert_eq!(format!("{other:?}"), shown);
    }
}
