<?php
/**
 * A task for procd, and its result: php ask.php KEY TEXT
 *
 * The envelope says what the body is and where the answer goes; docs/interop.md has it byte by
 * byte. Its type is this process's own, above every pid, so that nobody else reads it.
 */

declare(strict_types=1);

const MAGIC = "\xc1PDQ";
const PHP_FORMAT = 4;  // serialize()
const FAILURE = 2;
const HEADER_BYTES = 24;

[, $key, $text] = $argv + [1 => '1963150487', 2 => 'hello'];
// Not msg_get_queue alone: it would make a queue for everybody, which procd refuses.
$queue = msg_queue_exists((int) $key) ? msg_get_queue((int) $key) : false;
if ($queue === false) {
    fwrite(STDERR, "no queue $key: is procd running, with this message_queue_key?\n");
    exit(1);
}

$type = 4194304 + getmypid();
$number = random_int(0, PHP_INT_MAX);
$envelope = pack('a4CCCCPP', MAGIC, 1, PHP_FORMAT, 0, 0, $type, $number);
// Type 1: for any task worker. false: the bytes as they are, not serialized once more.
msg_send($queue, 1, $envelope . serialize($text), false);

do {  // an earlier process of this pid may have left one
    msg_receive($queue, $type, $received, 8192, $answer, false);
    $header = unpack('a4magic/Cversion/Cformat/Cstatus/Czero/Ptype/Pnumber', $answer);
} while ($header['magic'] !== MAGIC || $header['number'] !== $number);

$value = unserialize(substr($answer, HEADER_BYTES), ['allowed_classes' => false]);
if ($header['status'] === FAILURE) {
    fwrite(STDERR, "failure: $value\n");
    exit(1);
}
echo 'result: ', is_string($value) ? $value : json_encode($value), "\n";
