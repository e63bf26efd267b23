<?php
/**
 * Prints what clients send to the queue 1963150487, whatever language they are written in.
 *
 *     php examples/php/server.php [COUNT]        (COUNT messages; without it until Ctrl-C)
 *     php examples/php/client.php "this is will"  or  python examples/php/client.py "this is will"
 */

declare(strict_types=1);

require __DIR__ . '/queue.php';

const KEY = 1963150487;
const TYPE = 10;

$left = (int) ($argv[1] ?? 0);
$queue = open_queue(KEY);

// The queue is ours: it goes with us, also at Ctrl-C.
pcntl_async_signals(true);
$end = function () use ($queue): never {
    msg_remove_queue($queue);
    exit(0);
};
pcntl_signal(SIGINT, $end, false);
pcntl_signal(SIGTERM, $end, false);

echo "ready\n";
do {
    echo json_encode(receive($queue, TYPE), JSON_UNESCAPED_UNICODE) . "\n";
} while (--$left !== 0);
$end();
