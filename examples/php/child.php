<?php
/**
 * The child of parent_child.php on its own: it answers whoever has made the queue.
 *
 *     php examples/php/child.php KEY        (parent.py runs it)
 */

declare(strict_types=1);

require __DIR__ . '/queue.php';

$queue = open_queue((int) $argv[1]);
echo 'child got: ' . json_encode(receive($queue, 10)) . "\n";
send($queue, 11, '我是子进程发送的消息');
