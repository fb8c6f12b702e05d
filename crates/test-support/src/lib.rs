//! What the tests of several crates share: throw-away databases and queue namespaces on real servers, a proxy that
//! breaks connections on command, and servers that misbehave on request.
//!
//! **Architecture invariant:** a dev-dependency only. It depends on no crate of ours but `domain`, so that every crate
//! can use it in its own tests; what the code under test does is never reimplemented here.
//!
//! - [`amqp::AmqpNamespace`]: exchanges and queues of a test's own on a RabbitMQ that others use as well;
//! - [`llm::FakeLlm`]: a chat model's API that misbehaves as told;
//! - [`messy::generate`]: a file of creators with every defect that files from strangers have;
//! - [`postgres::TestDatabase`]: a migrated database of a test's own, in the same manner;
//! - [`profiles`]: made-up profiles, leads and programs;
//! - [`proxy::TcpProxy`]: stands between a client and any server, and cuts, freezes or delays;
//! - [`smtp::FakeSmtp`]: an SMTP server that follows a script;
//! - [`transitions`]: holds every change of a mail's state against the life cycle in `domain`;
//! - [`witness`]: writes down which tests talked to real servers.

pub mod amqp;
pub mod llm;
pub mod messy;
pub mod postgres;
pub mod profiles;
pub mod proxy;
pub mod smtp;
pub mod transitions;
pub mod witness;
