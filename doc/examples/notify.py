#!/usr/bin/env python3
"""Tell people what became of enqueued actions: a message for each that settles.

Usage: notify.py DSN TARGET [STATES [SINCE]]

DSN     connection string of libpq's; its role needs SELECT on accessreq.action, and
        sees there the actions of the roles that it is a member of
TARGET  https://… : a chat's incoming webhook, which gets {"text": "…"}
        somebody@example.com : mailed through the SMTP server of this machine
        (environment: SMTP_HOST, SMTP_PORT)
STATES  which to tell of, with commas between; default failed,unknown
SINCE   tell what settled since then, first: a time, or an interval ('1 hour');
        default: from now on

A notification reaches who listens at that moment, and nobody later: so each is
only the occasion to look at the table, as is a connection that is made again.
What the target refuses three times is given up, and said on standard error.
"""
import json
import os
import re
import select
import smtplib
import sys
import time
import urllib.request
from datetime import timedelta
from email.message import EmailMessage

import psycopg2
import psycopg2.extensions

TRIES = 3


def tell(target, text):
    if target.startswith(('http://', 'https://')):
        body = json.dumps({'text': text}).encode()
        request = urllib.request.Request(target, body, {'Content-Type': 'application/json'})
        urllib.request.urlopen(request, timeout=30).close()
        return
    mail = EmailMessage()
    mail['From'], mail['To'], mail['Subject'] = 'accessreq@localhost', target, text.splitlines()[0][:200]
    mail.set_content(text)
    host, port = os.environ.get('SMTP_HOST', 'localhost'), int(os.environ.get('SMTP_PORT', '25'))
    with smtplib.SMTP(host, port, timeout=30) as smtp:
        smtp.send_message(mail)


def insist(target, text):
    for attempt in range(1, TRIES + 1):
        try:
            return tell(target, text)
        except (OSError, smtplib.SMTPException) as error:
            print(f'could not tell {target} ({attempt} of {TRIES}): {error}\n{text}', file=sys.stderr, flush=True)
            time.sleep(attempt)


def settled_since(cursor, at, states):
    """What settled since then, the oldest first."""
    cursor.execute("""
        SELECT id, settled_at, format(E'%%s of %%s on %%s: %%s\\n%%s', kind, owner, server, state, error)
        FROM accessreq.action
        WHERE settled_at >= %s AND state = ANY (%s)
        ORDER BY settled_at, id""", (at, states))
    return cursor.fetchall()


def listen(dsn, target, states, told):
    connection = psycopg2.connect(dsn)
    connection.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)
    cursor = connection.cursor()
    cursor.execute('LISTEN accessreq_action')
    if told['at'] is None:
        since = told['since']
        cursor.execute('SELECT clock_timestamp()' if not since else
                       'SELECT %s::timestamptz' if re.match('[0-9]{4}-', since) else
                       'SELECT clock_timestamp() - %s::interval', (since,) if since else None)
        told['at'] = cursor.fetchone()[0]
    while True:
        for action, settled_at, text in settled_since(cursor, told['at'], states):
            if (action, settled_at) not in told['what']:
                insist(target, text)
                told['what'].add((action, settled_at))
                # a minute back: transactions do not commit in the order of their clocks
                told['at'] = max(told['at'], settled_at - timedelta(minutes=1))
        told['what'] = {(a, at) for a, at in told['what'] if at >= told['at']}
        connection.notifies.clear()
        select.select([connection], [], [], 60)
        connection.poll()


def main():
    if not 3 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    states = (sys.argv[3] if len(sys.argv) > 3 else 'failed,unknown').split(',')
    told = {'since': sys.argv[4] if len(sys.argv) > 4 else '', 'at': None, 'what': set()}
    while True:
        try:
            listen(sys.argv[1], sys.argv[2], states, told)
        except (psycopg2.Error, OSError) as error:
            print(error, file=sys.stderr, flush=True)
            time.sleep(5)


if __name__ == '__main__':
    main()
