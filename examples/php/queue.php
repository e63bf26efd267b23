<?php
/** What the programs here have in common: opening a queue, sending, receiving, with errors said. */

declare(strict_types=1);

/** The queue of that key, made if there is none. 0600: msg_get_queue() alone lets everybody in. */
function open_queue(int $key): SysvMessageQueue
{
    $queue = msg_get_queue($key, 0600);
    if ($queue === false) {
        fwrite(STDERR, sprintf("cannot open queue 0x%08x\n", $key));
        exit(1);
    }
    return $queue;
}

/** Send a value as PHP's serialize() of it, or ($serialize false) a string as it is. */
function send(SysvMessageQueue $queue, int $type, mixed $value, bool $serialize = true): void
{
    if (!msg_send($queue, $type, $value, $serialize, true, $error)) {
        fwrite(STDERR, 'cannot send: ' . posix_strerror($error) . "\n");
        exit(1);
    }
}

/** Wait for a message of that type. As data only: no class of the sender's choice is made. */
function receive(SysvMessageQueue $queue, int $type): mixed
{
    if (!msg_receive($queue, $type, $found, 8192, $data, false, 0, $error)) {
        fwrite(STDERR, 'cannot receive: ' . posix_strerror($error) . "\n");
        exit(1);
    }
    return unserialize($data, ['allowed_classes' => false]);
}
