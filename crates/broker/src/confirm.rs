//! Publishing a batch on one channel and learning what became of each message.
//!
//! Three traps are avoided here. Without `confirm_select` lapin resolves a confirm as if it were one. RabbitMQ *acks* a
//! mandatory message that it couldn't route, after having sent it back. And lapin hands a returned message out with
//! whichever confirm resolves next, which can be another message's: so returns are gathered over the whole batch and
//! matched by their identity. For that to work a channel carries one batch at a time.

use std::{collections::HashSet, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use lapin::{
    Channel, Confirmation,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    error::{BrokerError, PublishFailure},
    link::Link,
    message::Message,
    properties,
};

/// What became of a batch.
pub(crate) struct Outcome {
    /// Of each message, in order.
    pub(crate) results: Vec<Result<(), PublishFailure>>,
    /// Whether every message was answered for, so that the channel can carry the next batch.
    pub(crate) channel_is_clean: bool,
}

/// Opens a channel that confirms.
pub(crate) async fn confirming_channel(link: &Link) -> Result<Channel, BrokerError> {
    let channel = link.channel().await?;
    link.ask("asking for publisher confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

/// Publishes `batch` on a channel from [`confirming_channel`] that carries nothing else meanwhile.
pub(crate) async fn publish(channel: &Channel, batch: &[Message], patience: Duration) -> Outcome {
    let deadline = Instant::now() + patience;
    let mut answers: Vec<Option<lapin::Result<Confirmation>>> = batch.iter().map(|_| None).collect();
    // First polled in the order in which they were pushed, so messages go out in order.
    let mut pending: FuturesUnordered<_> = batch
        .iter()
        .enumerate()
        .map(async |(index, message)| {
            let options = BasicPublishOptions { mandatory: message.mandatory, immediate: false };
            let confirm = channel
                .basic_publish(
                    message.exchange.clone(),
                    message.routing_key.clone(),
                    options,
                    &message.body,
                    message.properties.clone(),
                )
                .await;
            match confirm {
                Ok(confirm) => (index, confirm.await),
                Err(error) => (index, Err(error)),
            }
        })
        .collect();
    while let Ok(Some((index, answer))) = timeout_at(deadline, pending.next()).await {
        answers[index] = Some(answer);
    }
    drop(pending);
    judge(batch, answers, patience)
}

/// What tells one message of a batch from another, as far as routing goes.
type Identity = (Option<String>, String, String);

fn judge(batch: &[Message], answers: Vec<Option<lapin::Result<Confirmation>>>, patience: Duration) -> Outcome {
    let channel_is_clean =
        answers.iter().all(|answer| matches!(answer, Some(Ok(Confirmation::Ack(_) | Confirmation::Nack(_)))));
    let mut returned: HashSet<Identity> = HashSet::new();
    let verdicts: Vec<_> = answers
        .into_iter()
        .map(|answer| match answer {
            Some(Ok(Confirmation::Ack(message))) => {
                returned.extend(message.map(|message| returned_identity(&message)));
                Ok(())
            }
            Some(Ok(Confirmation::Nack(message))) => {
                returned.extend(message.map(|message| returned_identity(&message)));
                Err(PublishFailure::Nacked)
            }
            Some(Ok(Confirmation::NotRequested)) => {
                Err(PublishFailure::Unconfirmed("the channel doesn't confirm".to_owned()))
            }
            Some(Err(error)) => Err(PublishFailure::Unconfirmed(error.to_string())),
            None => Err(PublishFailure::Unconfirmed(format!("no answer within {} ms", patience.as_millis()))),
        })
        .collect();
    let results = verdicts
        .into_iter()
        .zip(batch)
        .map(|(verdict, message)| match verdict {
            Ok(()) if returned.is_empty() || !message.mandatory => Ok(()),
            Ok(()) if returned.contains(&identity(message)) => Err(PublishFailure::Unroutable),
            // Some answers are missing, and one that came may have carried off the return of another message while this
            // one's own return is still on its way to a confirm that never resolves.
            Ok(()) if !channel_is_clean => {
                Err(PublishFailure::Unconfirmed("whether a queue took it got lost with other answers".to_owned()))
            }
            other => other,
        })
        .collect();
    Outcome { results, channel_is_clean }
}

fn identity(message: &Message) -> Identity {
    (properties::message_id(&message.properties), message.exchange.to_string(), message.routing_key.to_string())
}

fn returned_identity(message: &BasicReturnMessage) -> Identity {
    let delivery = &message.delivery;
    (properties::message_id(&delivery.properties), delivery.exchange.to_string(), delivery.routing_key.to_string())
}
