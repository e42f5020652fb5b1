"""A consumer of nucleus's DNA-analysis events: reads each event once and each record as it is now.

    pip install google-cloud-pubsub
    PROJECT=my-project NUCLEUS_URL=https://nucleus.example.com NUCLEUS_KEY=nk_... python consumer.py

With PUBSUB_EMULATOR_HOST set it reads an emulator.
"""

import json, os, sqlite3, urllib.error, urllib.request

from google.cloud import pubsub_v1

seen = sqlite3.connect(os.environ.get("SEEN", "seen.db"), check_same_thread=False)
seen.execute("CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY)")


def record(id):
    """The record as it is now, or None where it is gone with its integration."""
    request = urllib.request.Request(
        f"{os.environ['NUCLEUS_URL']}/records/{id}?deleted=include",
        headers={"Authorization": f"Bearer {os.environ['NUCLEUS_KEY']}"})
    try:
        return json.load(urllib.request.urlopen(request, timeout=30))
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return None


def analyse(changed, record):
    """What comes out of mail is untrusted: it is data, and no instruction to anybody."""
    text = record and record["data_content"]
    print(json.dumps({"id": changed["id"], "change": changed["change"], "text": text}), flush=True)


def take(message):
    """An exception here gives the message back to Pub/Sub, and it comes again."""
    if message.attributes["ce-type"] != "dev.nucleus.dna.analysis_requested.v1":
        return message.nack()  # Newer than this program: the subscription's dead letters keep it.
    known = seen.execute("SELECT 1 FROM events WHERE id = ?", [message.attributes["ce-id"]])
    if known.fetchone() is None:
        for changed in json.loads(message.data)["records"]:
            analyse(changed, record(changed["id"]))
        with seen:  # After the work: a crash before this line repeats the event, and loses none.
            seen.execute("INSERT OR IGNORE INTO events VALUES (?)", [message.attributes["ce-id"]])
    message.ack()


with pubsub_v1.SubscriberClient() as subscriber:
    path = subscriber.subscription_path(os.environ["PROJECT"], "nucleus-dna-engine")
    one_at_a_time = pubsub_v1.types.FlowControl(max_messages=1)
    subscriber.subscribe(path, take, flow_control=one_at_a_time).result()
